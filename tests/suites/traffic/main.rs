//! The node's proxy as users meet it: curl, wrk, openssl, socat, and from PyPI grpcio, requests and websockets, in pods
//! whose connections the kernel programs steer. A file is a topic; all play on [`stage`].

mod answers;
mod breaking;
mod changes;
mod entries;
mod gateway_api;
mod grpc;
mod hosts;
mod http;
mod layer4;
mod levels;
mod older;
mod patience;
mod pip;
mod policies;
mod protected;
mod races;
mod references;
mod routing;
mod runs;
mod shares;
mod stage;
mod websockets;
