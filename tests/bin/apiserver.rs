//! The test API server as a process of its own, so that its CPU and memory are not those of whoever is measured.
//! Started by `ApiServer::builder().spawn()`, or by hand; it ends when its standard input does.
//!
//! `weir-test-apiserver --port=8001 --control-port=8002 </dev/tty`, then `kubectl --server http://127.0.0.1:8001 …`,
//! and `curl -d '{"CutWatches": {"abruptly": true}}' 127.0.0.1:8002`.

fn main() -> anyhow::Result<()> {
    weir_tests::apiserver::serve_process(std::env::args().skip(1))
}
