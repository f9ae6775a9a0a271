//! A process on CPUs of its own: its CPU time, how long it had to wait for a CPU, its memory. Used by `rounds`, `peers`
//! and the suite `cost`.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Within this a subject listens.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// Within this a process that was asked to ends.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Within this a process that is talked to says its next line. Compiling 1,000 routes before the first one takes a second
/// or two, and up to fifty times as long under callgrind or in a build that records what it executes; the rest is for a
/// machine that is busy with something else. Longer is a hang.
const SAYS_WITHIN: Duration = Duration::from_mins(3);
/// Lines of what it said that an error has.
const TAIL: usize = 20;
/// What it still says when it has ended is read within this, unless a child of its own has the pipe.
const DRAINED_WITHIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);

/// What a process and its children have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// On a CPU.
    pub cpu: Duration,
    /// Able to run, and waiting for a CPU.
    pub waited: Duration,
    /// Clock ticks in user mode and in the kernel: coarse, and good for their proportion.
    pub ticks: [u64; 2],
}

impl Usage {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            waited: self.waited.saturating_sub(earlier.waited),
            ticks: [0, 1].map(|n| self.ticks[n].saturating_sub(earlier.ticks[n])),
        }
    }

    /// The share of user mode.
    pub fn user_share(&self) -> f64 {
        self.ticks[0] as f64 / (self.ticks[0] + self.ticks[1]).max(1) as f64
    }
}

/// A running process; it ends when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Output>,
}

/// What a process says, read by threads of its own: one that nobody listens to would stand still.
#[derive(Debug)]
struct Output {
    /// Of standard output.
    lines: Receiver<String>,
    /// Nothing comes; it is closed when standard error is.
    errors: Receiver<()>,
    /// The last ones of both.
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (line, lines) = mpsc::channel();
        let (open, errors) = mpsc::channel::<()>();
        // It is bounded by what our own programs say: a line for each question.
        read(child.stdout.take(), Arc::clone(&tail), move |text| drop(line.send(text)));
        read(child.stderr.take(), Arc::clone(&tail), move |text| {
            let _still_open = &open;
            let _nobody_looks = writeln!(io::stderr(), "{text}");
        });
        Self { lines, errors, tail }
    }

    fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.is_empty() {
            return "it has said nothing".to_owned();
        }
        tail.iter().fold("it said last:".to_owned(), |text, line| text + "\n  " + line)
    }
}

/// Hands on each line, and keeps the last ones. What is not text is made such.
fn read(
    from: Option<impl Read + Send + 'static>,
    tail: Arc<Mutex<VecDeque<String>>>,
    mut line: impl FnMut(String) + Send + 'static,
) {
    let Some(from) = from else { return };
    std::thread::spawn(move || {
        for text in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.clone());
            drop(tail);
            line(text);
        }
    });
}

impl Process {
    /// Starts `command` on `cpus`, with what it says going to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, cpus: &[usize], log: &Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("writing {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: spawn(command, cpus)?, input: None, output: None })
    }

    /// Starts `command` on `cpus`, to be talked to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn piped(mut command: Command, cpus: &[usize]) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command, cpus)?;
        let (input, output) = (child.stdin.take(), Output::of(&mut child));
        Ok(Self { child, input, output: Some(output) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says a line.
    ///
    /// # Errors
    /// When it has ended.
    pub fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.input.as_mut().context("nobody listens")?, "{line}").context("it has ended")
    }

    /// Waits until it says `ready`, as its first line.
    ///
    /// # Errors
    /// When it ends before, says something else, or takes longer than three minutes; with what it said last.
    pub fn await_ready(&mut self) -> Result<()> {
        let said = self.hear().context("it does not get ready")?;
        anyhow::ensure!(said == "ready", "it is not ready: it said {said:?}");
        Ok(())
    }

    /// Waits for its next line.
    ///
    /// # Errors
    /// When it has ended, or takes longer than three minutes; with what it said last.
    pub fn hear(&mut self) -> Result<String> {
        self.hear_within(SAYS_WITHIN)
    }

    fn hear_within(&mut self, within: Duration) -> Result<String> {
        let output = self.output.as_ref().context("nobody talks")?;
        match output.lines.recv_timeout(within) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("not a line within {within:?}; {}", output.tail()),
            Err(RecvTimeoutError::Disconnected) => {
                // Why it has ended may still be on its way.
                let _closed = output.errors.recv_timeout(DRAINED_WITHIN);
                bail!("it has ended; {}", output.tail())
            }
        }
    }

    /// Closes its input and waits for its end.
    ///
    /// # Errors
    /// When it fails, or does not end in time.
    pub fn finish(mut self, within: Duration) -> Result<()> {
        drop(self.input.take());
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "it ended with {status}");
                return Ok(());
            }
            ensure!(started.elapsed() < within, "it does not end");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until it accepts at `address`.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn await_listening(&mut self, address: std::net::SocketAddr) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            ensure!(started.elapsed() < STARTS_WITHIN, "nobody listens at {address}");
            std::thread::sleep(POLL);
        }
    }

    /// What it and its children have used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for pid in tree(self.pid()) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // The name is in brackets, and may have brackets and spaces of its own.
            let fields: Vec<&str> = stat.rsplit_once(')').context("a name in brackets")?.1.split_whitespace().collect();
            for (ticks, at) in sum.ticks.iter_mut().zip([11, 12]) {
                *ticks += fields.get(at).context("utime and stime")?.parse::<u64>()?;
            }
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                // A thread may end meanwhile.
                let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
                let mut numbers = text.split_whitespace().map_while(|n| n.parse().ok());
                let mut next = || Duration::from_nanos(numbers.next().unwrap_or(0));
                sum.cpu += next();
                sum.waited += next();
            }
        }
        Ok(sum)
    }

    /// Resident memory of it and its children, now and at its highest, in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<[u64; 2]> {
        let mut sum = [0; 2];
        for pid in tree(self.pid()) {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            for (sum, name) in sum.iter_mut().zip(["VmRSS:", "VmHWM:"]) {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
                *sum += line.trim().trim_end_matches(" kB").parse::<u64>()?;
            }
        }
        Ok(sum)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: it is our child and has not been reaped, so the id is its own.
        unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) };
        drop(self.input.take());
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() > ENDS_WITHIN {
                let _gone = self.child.kill();
                let _reaped = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

fn spawn(mut command: Command, cpus: &[usize]) -> Result<Child> {
    let set = cpu_set(cpus);
    // SAFETY: between fork and exec only system calls are made, with memory that is there already.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            affine(&set)
        });
    }
    command.spawn().with_context(|| format!("starting {}", command.get_program().display()))
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: CPU_SET checks the index against the set's size.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    set
}

fn affine(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: `set` is valid for reads of its size; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), std::ptr::from_ref(set)) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The CPUs that this process may use, at least one.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = cpu_set(&[]);
    // SAFETY: `set` is valid for writes of its size; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: each index is below CPU_SETSIZE, so within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Pins the calling thread.
///
/// # Errors
/// When there is no such CPU.
pub fn pin_thread(cpu: usize) -> io::Result<()> {
    affine(&cpu_set(&[cpu]))
}

/// Takes as many descriptors as this process may have; what it starts inherits that.
///
/// # Errors
/// When that is fewer than `wanted`.
pub fn raise_descriptors(wanted: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    ensure!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0, io::Error::last_os_error());
    let most = limit.rlim_max;
    ensure!(most >= wanted, "{wanted} descriptors are needed, and {most} are allowed (ulimit -Hn)");
    limit.rlim_cur = most;
    // SAFETY: `limit` is valid for reads.
    ensure!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0, io::Error::last_os_error());
    Ok(())
}

/// Has the calling thread's timers fire when they are due, and not up to 50 µs later, which is the default.
pub fn precise_timers() {
    // SAFETY: changes nothing but this thread's slack, in nanoseconds.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0, 0, 0) };
}

/// Has the scheduler prefer this process and what it starts to other work on the machine, as far as it lets us: a
/// session of its own, which other sessions yield to, and turns that are short, so that whoever wakes up runs at once.
pub fn prefer_us() {
    /// Of a session, as nice values go.
    const PRIORITY: &str = "-15";
    /// The shortest turn that the scheduler gives.
    const TURN_NS: u64 = 100_000;
    /// `struct sched_attr` in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct SchedulingAttributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: no preconditions. It fails for the leader of a group, which then has a session already.
    unsafe { libc::setsid() };
    let _without_autogroups = fs::write("/proc/self/autogroup", PRIORITY);
    let size = size_of::<SchedulingAttributes>() as u32;
    let attributes = SchedulingAttributes { size, runtime: TURN_NS, ..SchedulingAttributes::default() };
    // SAFETY: `attributes` is valid for reads of the size that it says; 0 is this thread. An old kernel refuses.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// A process and all below it.
fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children: Vec<u32> = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        found.extend(children);
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::piped(command, &allowed().expect("CPUs")).expect("a shell")
    }

    #[test]
    fn who_gets_ready_is_waited_for_and_heard() {
        let mut process = shell("echo ready; read question; echo \"to $question\"");
        process.await_ready().expect("it says so");
        process.say("this").expect("it listens");
        assert_eq!(process.hear().expect("an answer"), "to this");
    }

    #[test]
    fn who_does_not_is_told_of_with_its_last_words() {
        let mut silent = shell("exec sleep 60");
        let told = silent.hear_within(Duration::from_millis(50)).expect_err("it says nothing").to_string();
        assert_eq!(told, "not a line within 50ms; it has said nothing");
        let mut ended = shell("for n in $(seq 30); do echo error $n >&2; done");
        let told = format!("{:#}", ended.await_ready().expect_err("it ends"));
        assert!(told.starts_with("it does not get ready: it has ended; it said last:\n  error 11\n"), "{told}");
        assert!(told.ends_with("\n  error 30"), "{told}");
        let told = shell("echo not yet").await_ready().expect_err("something else").to_string();
        assert_eq!(told, "it is not ready: it said \"not yet\"");
    }
}
