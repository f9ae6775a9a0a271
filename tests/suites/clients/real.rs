//! A real API server with its etcd, from the directory that `KUBEBUILDER_ASSETS` names: one for a whole test program,
//! ended with it. So what is proven of the harness's own server is held against the original.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

/// Starting takes some 5 s, and several times that on a busy machine.
const START: Duration = Duration::from_mins(2);

/// Directories of real servers, with the test program's process id behind it.
const PREFIX: &str = "weir-real-api-";

/// The kubeconfig of the real server, `None` where there is none.
pub(crate) fn kubeconfig() -> Result<Option<PathBuf>> {
    static STARTED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(given) = std::env::var_os("WEIR_TEST_KUBECONFIG") {
        return Ok(Some(given.into()));
    }
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else {
        return Ok(None);
    };
    let started = STARTED.get_or_init(|| start(Path::new(&assets)).map_err(|e| format!("{e:#}")));
    started.clone().map(Some).map_err(|e| anyhow!("{e}"))
}

/// Removes what the servers of test programs that have ended left behind.
fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _somebody_elses = fs::remove_dir_all(entry.path());
        }
    }
}

fn start(assets: &Path) -> Result<PathBuf> {
    clear(&std::env::temp_dir());
    let directory = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let key = rcgen::KeyPair::generate()?;
    fs::write(directory.join("accounts.key"), key.serialize_pem())?;
    fs::write(directory.join("accounts.pub"), key.public_key_pem())?;
    fs::write(directory.join("tokens.csv"), "admin,admin,admin,system:masters\n")?;
    let [client, peer, secure] = ports()?;
    let here = |file: &str| directory.join(file).display().to_string();
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let config = json!({
        "name": "test", "data-dir": here("etcd"), "unsafe-no-fsync": true,
        "listen-client-urls": client, "advertise-client-urls": client,
        "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": format!("test={peer}"),
    });
    fs::write(directory.join("etcd.yaml"), config.to_string())?;
    let etcd = [format!("--config-file={}", here("etcd.yaml"))];
    let server = [
        format!("--etcd-servers={client}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".into(),
        format!("--cert-dir={}", here("certificates")),
        format!("--token-auth-file={}", here("tokens.csv")),
        "--authorization-mode=RBAC".into(),
        "--disable-admission-plugins=ServiceAccount".into(),
        "--service-cluster-ip-range=10.98.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", here("accounts.pub")),
        format!("--service-account-signing-key-file={}", here("accounts.key")),
    ];
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{secure}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "test", "user": {"token": "admin"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    fs::write(directory.join("kubeconfig"), config.to_string())?;
    // A process that is to end with its parent ends with the thread that started it; so that thread stays.
    let programs = [(assets.join("etcd"), etcd.to_vec()), (assets.join("kube-apiserver"), server.to_vec())];
    let logs = directory.clone();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let run = |(program, arguments): (PathBuf, Vec<String>)| spawn(&program, &arguments, &logs);
        let _nobody_asks = tell.send(programs.into_iter().try_for_each(run));
        loop {
            thread::park();
        }
    });
    told.recv().context("the thread that starts programs")??;
    let kubeconfig = directory.join("kubeconfig");
    ready(&directory, secure)?;
    Ok(kubeconfig)
}

fn spawn(program: &Path, arguments: &[String], logs: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    let log = fs::File::create(logs.join(name).with_extension("log"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: prctl is async-signal-safe and changes the child only.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn().with_context(|| format!("starting {}", program.display())).map(drop)
}

fn ports() -> Result<[u16; 3]> {
    let free = || Ok::<_, anyhow::Error>(TcpListener::bind("127.0.0.1:0")?);
    let held = [free()?, free()?, free()?];
    let port = |l: &TcpListener| Ok::<_, anyhow::Error>(l.local_addr()?.port());
    Ok([port(&held[0])?, port(&held[1])?, port(&held[2])?])
}

fn ready(directory: &Path, port: u16) -> Result<()> {
    let started = Instant::now();
    let url = format!("https://127.0.0.1:{port}/readyz");
    loop {
        let mut curl = Command::new("curl");
        let answer = curl.args(["-sk", "-H", "Authorization: Bearer admin", &url]).output().context("running curl")?;
        if answer.stdout == b"ok" {
            return Ok(());
        }
        ensure!(started.elapsed() < START, "not ready within {START:?}; logs are in {}", directory.display());
        thread::sleep(Duration::from_millis(100));
    }
}
