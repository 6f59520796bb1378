//! Connections to a real OpenSSH server, through the user's `ssh`.

mod sshd;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sshd::{Sshd, error, finish, free_port, keygen, open, refusal};
use sy::ErrorKind;
use sy::sync::{Control, Stop};
use sy::transport::ssh::connect::{Failure, Start, Stream, Target, connect};
use sy::transport::ssh::{HostKeyPolicy, SshConfig};

fn run(server: &Sshd, command: &str) -> (Vec<u8>, Failure) {
    finish(open(&server.target(), &server.config(), Start::Command(command)))
}

/// `ssh` processes that were started for this server, with their sessions.
fn processes(port: u16) -> Vec<(u32, i32)> {
    let all = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = all.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"ssh\0") && String::from_utf8_lossy(&line).contains(&format!("-oPort={port}\0"))
    });
    ours.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()?))
    })
    .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn bytes_go_there_and_back() {
    let server = Sshd::start("");
    let Stream { read, write, mut link } = open(&server.target(), &server.config(), Start::Command("cat"));
    let sent: Vec<u8> = (0..6_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || File::from(write).write_all(&copy));
    let mut back = Vec::new();
    File::from(read).read_to_end(&mut back).expect("readable");
    writer.join().expect("joined").expect("written");
    assert!(back == sent);
    assert!(matches!(link.failure(), Failure::Command { code: Some(0), .. }));
}

#[test]
fn a_command_ends_with_its_code_and_its_last_words() {
    let server = Sshd::start("");
    for (command, expected, words) in
        [("echo out; echo no such thing >&2; exit 127", Some(127), "no such thing"), ("exit 255", Some(255), ""), ("kill -9 $$", None, "")]
    {
        let Failure::Command { code, stderr } = run(&server, command).1 else { panic!("{command}: an error of the connection") };
        assert_eq!((code, stderr.as_str()), (expected, words), "{command}");
    }
}

#[test]
fn a_command_that_writes_much_to_standard_error_blocks_nothing() {
    let server = Sshd::start("");
    let (out, failure) = run(&server, "head -c 20000000 /dev/zero | tr '\\0' e >&2; echo; echo last >&2; echo out");
    assert_eq!(out, b"\nout\n");
    let Failure::Command { code, stderr } = failure else { panic!("{failure:?}") };
    assert!(code == Some(0) && stderr.ends_with("last") && stderr.len() <= 8192, "{code:?} {}", stderr.len());
}

#[test]
fn a_subsystem_answers() {
    let server = Sshd::start("");
    let Stream { read, write, link: _link } = open(&server.target(), &server.config(), Start::Subsystem("sftp"));
    let mut write = File::from(write);
    write.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).expect("written");
    let mut answer = [0; 9];
    File::from(read).read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[4..], [2, 0, 0, 0, 3]);
    let failure = finish(open(&server.target(), &server.config(), Start::Subsystem("none"))).1;
    let Failure::Command { code: None, stderr } = failure else { panic!("{failure:?}") };
    assert!(stderr.contains("subsystem request failed"), "{stderr}");
}

#[test]
fn an_unknown_host_key_is_refused_and_can_be_accepted() {
    let server = Sshd::start("");
    let empty = server.path("empty");
    let mut config = SshConfig { known_hosts: Some(empty.clone()), ..server.config() };
    let refused = refusal(&server.target(), &config);
    assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
    let text = refused.to_string();
    let print = Command::new("ssh-keygen").arg("-lf").arg(server.path("host_key.pub")).output().expect("a fingerprint").stdout;
    let print = String::from_utf8_lossy(&print);
    let print = print.split_whitespace().nth(1).expect("a fingerprint");
    for part in [empty.to_str().expect("text"), print, "ssh-keyscan", &server.port.to_string()] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    config.host_key_policy = HostKeyPolicy::AcceptNew;
    assert!(matches!(finish(open(&server.target(), &config, Start::Command("true"))).1, Failure::Command { code: Some(0), .. }));
    config.host_key_policy = HostKeyPolicy::Strict;
    assert!(matches!(finish(open(&server.target(), &config, Start::Command("true"))).1, Failure::Command { code: Some(0), .. }));
}

#[test]
fn host_keys_are_checked_whatever_the_configuration_says() {
    let server = Sshd::start("");
    let text =
        format!("StrictHostKeyChecking no\nNoHostAuthenticationForLocalhost yes\nUserKnownHostsFile {}\n", server.path("none").display());
    fs::write(server.path("ssh_config"), text).expect("written");
    let config = SshConfig { known_hosts: None, ..server.config() };
    let refused = refusal(&server.target(), &config);
    assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
    assert!(refused.to_string().contains(server.path("none").to_str().expect("text")), "{refused}");
    assert!(!server.path("none").exists());
}

#[test]
fn a_changed_host_key_is_refused_with_its_place() {
    let server = Sshd::start("");
    keygen(&server.path("other"), "ed25519", "");
    let key = fs::read_to_string(server.path("other.pub")).expect("a key");
    fs::write(server.known_hosts(), format!("# mine\n[127.0.0.1]:{} {key}", server.port)).expect("written");
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let refused = refusal(&server.target(), &SshConfig { host_key_policy: policy, ..server.config() });
        assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
        assert!(refused.to_string().contains(&format!("{}:2", server.known_hosts().display())), "{refused}");
    }
}

#[test]
fn a_key_that_the_host_does_not_know_is_refused() {
    let server = Sshd::start("");
    keygen(&server.path("other"), "ed25519", "");
    let refused = refusal(&server.target(), &SshConfig { key_file: Some(server.path("other")), ..server.config() });
    assert_eq!((refused.kind, refused.retryable), (ErrorKind::Authentication, false), "{refused}");
    assert!(refused.to_string().contains("publickey"), "{refused}");
    let missing = SshConfig { key_file: Some(server.path("missing")), ..server.config() };
    let missing = connect(&server.target(), &missing, Start::Command("true"), &Stop::default()).expect_err("no key");
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

#[test]
fn a_port_where_nobody_listens() {
    let server = Sshd::start("");
    let refused = refusal(&Target { port: Some(free_port()), ..server.target() }, &server.config());
    assert_eq!(refused.kind, ErrorKind::Network, "{refused}");
    assert!(refused.to_string().contains("refused"), "{refused}");
}

#[test]
fn a_host_that_says_nothing_is_given_up() {
    let server = Sshd::start("");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = Target { port: Some(silent.local_addr().expect("a port").port()), ..server.target() };
    let config = SshConfig { connect_timeout: "0.5".parse().ok(), ..server.config() };
    let refused = refusal(&target, &config);
    assert_eq!((refused.kind, refused.retryable), (ErrorKind::Timeout, true), "{refused}");

    let control = Control::default();
    let stream = connect(&target, &server.config(), Start::Command("true"), &control.stop()).expect("begins to connect");
    control.cancel();
    assert_eq!(error(finish(stream).1).kind, ErrorKind::Cancelled);
}

#[test]
fn a_connection_that_is_cut_can_be_made_again() {
    let server = Sshd::start("");
    let Stream { read, write, mut link } = open(&server.target(), &server.config(), Start::Command("echo $PPID; cat"));
    let (mut read, mut line, mut byte) = (File::from(read), String::new(), [0]);
    while !line.ends_with('\n') {
        read.read_exact(&mut byte).expect("a line");
        line.push(byte[0].into());
    }
    let pid = line.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    read.read_to_end(&mut Vec::new()).expect("readable");
    let cut = error(link.failure());
    assert_eq!((cut.kind, cut.retryable), (ErrorKind::Network, true), "{cut}");
    drop(write);
}

#[test]
fn nothing_is_left_of_a_dropped_connection() {
    let server = Sshd::start("");
    let stream = open(&server.target(), &server.config(), Start::Command("sleep 1000"));
    let running = processes(server.port);
    assert_eq!(running.len(), 1);
    // Ctrl-C in a terminal goes to all processes of our session, not to this one.
    assert_eq!(running[0].1, i32::try_from(running[0].0).expect("a process id"));
    drop(stream);
    assert!(processes(server.port).is_empty());
}

/// Not a test: the process that the next one kills.
#[test]
#[ignore = "it waits to be killed"]
fn connects_and_waits() {
    let setting = |name: &str| std::env::var(name).expect("set by the test that runs this");
    let target = Target { user: None, host: "127.0.0.1".into(), port: setting("SY_TEST_PORT").parse().ok() };
    let dir = std::path::PathBuf::from(setting("SY_TEST_DIR"));
    let config = SshConfig {
        key_file: Some(dir.join("id")),
        known_hosts: Some(dir.join("known_hosts")),
        config_file: Some(dir.join("ssh_config")),
        ..SshConfig::default()
    };
    let stream = open(&target, &config, Start::Command("cat"));
    let mut write = File::from(stream.write.try_clone().expect("a descriptor"));
    write.write_all(b"x").expect("written");
    File::from(stream.read).read_exact(&mut [0]).expect("an answer");
    println!("connected");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn nothing_is_left_when_this_process_is_killed() {
    let server = Sshd::start("");
    let mut child = Command::new(std::env::current_exe().expect("a program"))
        .args(["--ignored", "--exact", "connects_and_waits", "--nocapture"])
        .env("SY_TEST_PORT", server.port.to_string())
        .env("SY_TEST_DIR", server.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut out = child.stdout.take().expect("its output");
    let mut text = Vec::new();
    until("it connects", || {
        let mut byte = [0];
        let read = out.read(&mut byte).expect("readable");
        text.extend_from_slice(&byte[..read]);
        String::from_utf8_lossy(&text).contains("connected")
    });
    assert_eq!(processes(server.port).len(), 1);
    child.kill().expect("killed");
    child.wait().expect("gone");
    until("ssh ends", || processes(server.port).is_empty());
}

#[test]
fn a_host_behind_others_is_reached_and_each_key_checked() {
    let (server, first, second) = (Sshd::start(""), Sshd::start(""), Sshd::start(""));
    for other in [&first, &second] {
        fs::copy(server.path("authorized_keys"), other.path("authorized_keys")).expect("copied");
    }
    let all = server.known_line() + &first.known_line() + &second.known_line();
    fs::write(server.known_hosts(), &all).expect("written");
    let jump = format!("127.0.0.1:{},127.0.0.1:{}", first.port, second.port);
    let config = SshConfig { proxy_jump: Some(jump), ..server.config() };
    let (out, failure) = finish(open(&server.target(), &config, Start::Command("echo $SSH_CONNECTION")));
    assert!(matches!(failure, Failure::Command { code: Some(0), .. }), "{failure:?}");
    assert!(String::from_utf8_lossy(&out).trim().ends_with(&server.port.to_string()));
    for (known, unknown) in
        [(server.known_line() + &first.known_line(), second.port), (server.known_line() + &second.known_line(), first.port)]
    {
        fs::write(server.known_hosts(), known).expect("written");
        let refused = refusal(&server.target(), &config);
        assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
        assert!(refused.to_string().contains(&unknown.to_string()), "{refused}");
    }
}
