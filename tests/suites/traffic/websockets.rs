//! WebSockets through a weighted route: client and server are PyPI's `websockets`.

use std::process::Command;

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{Process, Service, proved, require};

use super::pip;
use super::stage::{SUBSETS, Stage, object};

/// Says its version first, then gives back everything.
const SERVER: &str = r#"
import asyncio, sys, websockets
async def talk(ws):
    await ws.send(sys.argv[1])
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(talk, "0.0.0.0", 8765, max_size=None):
        print("listening", flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

/// Sixty connections at once; each is told who answers, and sends texts, bytes, a ping and its farewell.
const CLIENT: &str = r#"
import asyncio, collections, os, sys, websockets
async def talk(n):
    async with websockets.connect("ws://" + sys.argv[1] + "/chat", max_size=None, additional_headers={"x-n": str(n)}) as ws:
        version = await ws.recv()
        for size in (0, 1, 125, 126, 65535, 65536, 300000):
            sent = os.urandom(size)
            await ws.send(sent)
            assert await ws.recv() == sent, size
        await ws.send("häßlich")
        assert await ws.recv() == "häßlich"
        await asyncio.wait_for(await ws.ping(), 5)
    assert ws.close_code == 1000, ws.close_code
    return version
async def main():
    met = collections.Counter(await asyncio.gather(*(talk(n) for n in range(60))))
    print(met["v1"], met["v2"], sum(met.values()))
asyncio.run(main())
"#;

#[test]
fn websockets_are_split_by_weight_and_carry_everything() -> Result<()> {
    let name = "websockets_are_split_by_weight_and_carry_everything";
    if !require(name, &[Need::Agent, Need::Program("python3")]) {
        return Ok(());
    }
    let Some(python) = pip::python(name)? else {
        return Ok(());
    };
    let rules = object(
        "VirtualService",
        "hosts: [chat], http: [{match: [{uri: {exact: /chat}}], route: [{destination: {host: chat, subset: v1}, weight: 50}, \
         {destination: {host: chat, subset: v2}, weight: 50}]}]",
    ) + &object("DestinationRule", &format!("host: chat, {SUBSETS}"));
    let stage = Stage::furnished(&rules, |scene| {
        scene.manifests.service(&Service::new("chat", 4).selects("service-b").port("http", 80, "8765"))
    })?;
    let mut servers = Vec::new();
    for pod in ["b-v1-0", "b-v1-1", "b-v2-0"] {
        let pod = stage.scene.mesh.pod(pod);
        let mut server = Command::new(&python);
        server.args(["-c", SERVER, &pod.spec.labels["version"]]);
        servers.push(Process::spawn(&pod.place, server, &stage.scene.mesh.log("websockets"))?);
    }
    let listening =
        || std::fs::read_to_string(stage.scene.mesh.log("websockets")).unwrap_or_default().matches("listening").count();
    weir_tests::eventually("the servers listen", std::time::Duration::from_secs(20), || {
        Ok((listening() == servers.len()).then_some(()))
    })?;
    stage.agent.await_verdict("default/chat:80", "proxy")?;
    let said = stage.run("client", &python, &["-c", CLIENT, "10.96.0.4:80"])?;
    let met: Vec<u32> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // Sixty fair rolls are below 12 or above 48 once in a million runs.
    ensure!(met.len() == 3 && met[2] == 60 && (12..=48).contains(&met[0]), "{said}");
    let upgraded = stage.agent.logged("\"GET /chat HTTP/1.1\" 101 ", 60)?;
    ensure!(upgraded.len() == 60, "{} upgrades in the log", upgraded.len());
    proved!("60 WebSockets, {} to v1 and {} to v2, every message came back", met[0], met[1]);
    Ok(())
}
