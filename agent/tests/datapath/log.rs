//! The debug object takes over from the released one, and the agent reads what it logs.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir::datapath::object;
use weir_tests::require::skip;

use crate::bed::{Bed, balance};

/// What the global subscriber writes, for the one test that reads it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_debug_object_takes_over_and_its_log_is_read() {
    let Some(mut bed) = Bed::new("kernel log") else { return };
    if object::debug().is_none() {
        return skip("kernel_log", "no debug object in this build (cargo xtask build-ebpf --debug)");
    }
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
    let one = bed.server(1);
    drop(bed.open());
    bed.config.kernel_log = true;
    let mut datapath = bed.open();
    assert_eq!(datapath.attached().adopted, 5);
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let log = datapath.kernel_log().unwrap();
    assert!(datapath.kernel_log().is_none(), "there is one reader");
    let mut client = bed.client();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The whole record: a cookie alone is a small number, and would be found in a timestamp.
    let record = format!("netns {} to ::ffff:10.96.7.7 port 80: steer", bed.netns.cookie());
    let seen = runtime.block_on(async {
        let reader = tokio::spawn(log);
        assert_eq!(client.ask("1"), "1=1");
        for _ in 0..1000 {
            if lines.text().contains(&record) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        reader.abort();
        lines.text()
    });
    assert!(seen.contains(&record), "{seen}");
}
