//! The node's proxy as users meet it: curl, wrk, openssl, socat, and from PyPI requests and websockets, in pods whose
//! connections the kernel programs steer. A file is a topic; all play on [`stage`].

mod answers;
mod breaking;
mod changes;
mod entries;
mod gateway_api;
mod hosts;
mod http;
mod layer4;
mod older;
mod patience;
mod pip;
mod policies;
mod races;
mod routing;
mod shares;
mod stage;
mod websockets;
