//! Connections to a real OpenSSH server without the program `ssh`, which can't be given secrets.
#![cfg(feature = "russh")]

mod sshd;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use sshd::{Sshd, finish, free_port, keygen, open, refusal};
use sy::ErrorKind;
use sy::sync::{Control, Stop};
use sy::transport::config::Secret;
use sy::transport::ssh::connect::{Failure, Start, Stream, Target, connect};
use sy::transport::ssh::{HostKeyPolicy, SshConfig};

/// With the key itself instead of its file, so that no `ssh` can be used.
fn config(server: &Sshd) -> SshConfig {
    let key = fs::read_to_string(server.path("id")).expect("a key");
    SshConfig { key_file: None, key_data: Secret::from_text(&key), ..server.config() }
}

fn works(server: &Sshd, config: &SshConfig) {
    let (out, failure) = finish(open(&server.target(), config, Start::Command("echo fine")));
    assert!(out == b"fine\n" && matches!(failure, Failure::Command { code: Some(0), .. }), "{failure:?}");
}

#[test]
fn bytes_go_there_and_back() {
    let server = Sshd::start("");
    let Stream { read, write, mut link } = open(&server.target(), &config(&server), Start::Command("cat"));
    let sent: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || File::from(write).write_all(&copy));
    // A reader that is late stops the other side, not the program's memory.
    std::thread::sleep(Duration::from_millis(300));
    let mut back = Vec::new();
    File::from(read).read_to_end(&mut back).expect("readable");
    writer.join().expect("joined").expect("written");
    assert!(back == sent);
    assert!(matches!(link.failure(), Failure::Command { code: Some(0), .. }));
}

#[test]
fn a_command_ends_with_its_code_and_its_last_words() {
    let server = Sshd::start("");
    for (command, expected, words) in [
        ("echo out; echo no such thing >&2; exit 127", Some(127), "no such thing"),
        ("exit 255", Some(255), ""),
        ("kill -9 $$", None, ""),
        ("head -c 20000000 /dev/zero | tr '\\0' e >&2; echo >&2; echo last >&2", Some(0), "last"),
    ] {
        let failure = finish(open(&server.target(), &config(&server), Start::Command(command))).1;
        let Failure::Command { code, stderr } = failure else { panic!("{command}: {failure:?}") };
        assert!(code == expected && stderr.ends_with(words) && stderr.len() <= 4096, "{command}: {code:?} {stderr}");
    }
}

#[test]
fn a_subsystem_answers() {
    let server = Sshd::start("");
    let stream = open(&server.target(), &config(&server), Start::Subsystem("sftp"));
    let mut write = File::from(stream.write);
    write.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).expect("written");
    let mut answer = [0; 9];
    File::from(stream.read).read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[4..], [2, 0, 0, 0, 3]);
    let failure = finish(open(&server.target(), &config(&server), Start::Subsystem("none"))).1;
    assert!(matches!(failure, Failure::Command { code: None, .. }), "{failure:?}");
}

#[test]
fn keys_of_all_kinds_open() {
    let server = Sshd::start("");
    for (kind, passphrase) in [("rsa", ""), ("ecdsa", ""), ("ed25519", "open sesame"), ("rsa", "open sesame")] {
        let file = server.path(&format!("{kind}-{}", passphrase.len()));
        keygen(&file, kind, passphrase);
        fs::copy(file.with_extension("pub"), server.path("authorized_keys")).expect("copied");
        let text = fs::read_to_string(&file).expect("a key");
        let data = SshConfig { key_data: Secret::from_text(&text), passphrase: Secret::from_text(passphrase), ..config(&server) };
        works(&server, &data);
        if passphrase.is_empty() {
            continue;
        }
        works(&server, &SshConfig { key_data: None, key_file: Some(file.clone()), ..data.clone() });
        let wrong = refusal(&server.target(), &SshConfig { passphrase: Secret::from_text("other words"), ..data.clone() });
        assert!(wrong.kind == ErrorKind::Authentication && wrong.to_string().contains("passphrase"), "{wrong}");
        let none = refusal(&server.target(), &SshConfig { passphrase: None, ..data });
        assert!(none.kind == ErrorKind::Authentication && none.to_string().contains("passphrase"), "{none}");
    }
}

#[test]
fn keys_in_older_files_open() {
    let server = Sshd::start("");
    for format in ["PEM", "PKCS8"] {
        for kind in ["rsa", "ecdsa"] {
            let file = server.path(&format!("{kind}-{format}"));
            let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-m", format, "-N", "", "-f"]).arg(&file).status();
            assert!(made.expect("ssh-keygen").success());
            fs::copy(file.with_extension("pub"), server.path("authorized_keys")).expect("copied");
            works(&server, &SshConfig { key_data: Secret::from_text(&fs::read_to_string(&file).expect("a key")), ..config(&server) });
        }
    }
}

#[test]
fn an_agent_opens() {
    let server = Sshd::start("");
    let socket = server.path("agent");
    let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().expect("ssh-agent");
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let added = Command::new("ssh-add").arg("-q").arg(server.path("id")).env("SSH_AUTH_SOCK", &socket).status().expect("ssh-add");
    assert!(added.success());
    fs::write(server.path("ssh_config"), format!("IdentityAgent {}\nIdentityFile none\n", socket.display())).expect("written");
    works(&server, &SshConfig { key_data: None, password: Secret::from_text("not asked for"), ..config(&server) });
    agent.kill().expect("ended");
    agent.wait().expect("ended");
}

#[test]
fn a_key_and_a_password_may_both_be_needed() {
    // Nobody has this password; that the key alone is not enough shows in what is asked for next.
    let server = Sshd::start("PasswordAuthentication yes\nAuthenticationMethods publickey,password");
    let refused = refusal(&server.target(), &SshConfig { password: Secret::from_text("x"), ..config(&server) });
    assert!(refused.kind == ErrorKind::Authentication && refused.to_string().contains("password"), "{refused}");
}

#[test]
fn an_unknown_host_key_is_refused_and_can_be_accepted() {
    let server = Sshd::start("");
    let empty = server.path("dir/empty");
    let mut config = SshConfig { known_hosts: Some(empty.clone()), ..config(&server) };
    let refused = refusal(&server.target(), &config);
    assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
    let print = Command::new("ssh-keygen").arg("-lf").arg(server.path("host_key.pub")).output().expect("a fingerprint").stdout;
    let print = String::from_utf8_lossy(&print);
    let text = refused.to_string();
    for part in [empty.to_str().expect("text"), print.split_whitespace().nth(1).expect("a fingerprint"), "ssh-keyscan"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    config.host_key_policy = HostKeyPolicy::AcceptNew;
    works(&server, &config);
    config.host_key_policy = HostKeyPolicy::Strict;
    works(&server, &config);
    // The program ssh reads what was written.
    works(&server, &SshConfig { known_hosts: Some(empty), ..server.config() });
}

#[test]
fn a_changed_host_key_is_refused_with_its_place() {
    let server = Sshd::start("");
    keygen(&server.path("other"), "ed25519", "");
    let key = fs::read_to_string(server.path("other.pub")).expect("a key");
    fs::write(server.known_hosts(), format!("# mine\n[127.0.0.1]:{} {key}", server.port)).expect("written");
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let refused = refusal(&server.target(), &SshConfig { host_key_policy: policy, ..config(&server) });
        assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
        assert!(refused.to_string().contains(&format!("{}:2", server.known_hosts().display())), "{refused}");
    }
}

#[test]
fn a_host_with_several_keys_is_asked_for_the_known_one() {
    let dir = tempfile::tempdir().expect("a directory");
    keygen(&dir.path().join("rsa"), "rsa", "");
    let server = Sshd::start(&format!("HostKey {}/rsa", dir.path().display()));
    let key = fs::read_to_string(dir.path().join("rsa.pub")).expect("a key");
    fs::write(server.known_hosts(), format!("[127.0.0.1]:{} {key}", server.port)).expect("written");
    works(&server, &config(&server));
    let hashed =
        Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(server.known_hosts()).stderr(Stdio::null()).status().expect("ssh-keygen");
    assert!(hashed.success() && fs::read_to_string(server.known_hosts()).expect("text").starts_with("|1|"));
    works(&server, &config(&server));
}

#[test]
fn a_key_that_the_host_does_not_know_is_refused() {
    let server = Sshd::start("");
    keygen(&server.path("other"), "ed25519", "");
    let key = fs::read_to_string(server.path("other")).expect("a key");
    let refused = refusal(&server.target(), &SshConfig { key_data: Secret::from_text(&key), ..config(&server) });
    assert_eq!((refused.kind, refused.retryable), (ErrorKind::Authentication, false), "{refused}");
    assert!(refused.to_string().contains("publickey") && !refused.to_string().contains("PRIVATE"), "{refused}");
}

#[test]
fn a_port_where_nobody_listens_and_a_host_that_says_nothing() {
    let server = Sshd::start("");
    let refused = refusal(&Target { port: Some(free_port()), ..server.target() }, &config(&server));
    assert!(refused.kind == ErrorKind::Network && refused.to_string().contains("refused"), "{refused}");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = Target { port: Some(silent.local_addr().expect("a port").port()), ..server.target() };
    let late = refusal(&target, &SshConfig { connect_timeout: "0.3".parse().ok(), ..config(&server) });
    assert_eq!((late.kind, late.retryable), (ErrorKind::Timeout, true), "{late}");

    let control = Control::default();
    let mut stream = connect(&target, &config(&server), Start::Command("true"), &control.stop()).expect("begins to connect");
    control.cancel();
    File::from(stream.read).read_to_end(&mut Vec::new()).expect("readable");
    assert!(matches!(stream.link.failure(), Failure::Connection(error) if error.kind == ErrorKind::Cancelled));
    // One that is dropped meanwhile does not wait.
    drop(open(&target, &config(&server), Start::Command("true")));
}

#[test]
fn a_connection_that_is_cut_can_be_made_again() {
    let server = Sshd::start("");
    let Stream { read, write, mut link } = open(&server.target(), &config(&server), Start::Command("echo $PPID; cat"));
    let (mut read, mut line, mut byte) = (File::from(read), String::new(), [0]);
    while !line.ends_with('\n') {
        read.read_exact(&mut byte).expect("a line");
        line.push(byte[0].into());
    }
    let pid = line.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    read.read_to_end(&mut Vec::new()).expect("readable");
    let Failure::Connection(cut) = link.failure() else { panic!("not cut") };
    assert_eq!((cut.kind, cut.retryable), (ErrorKind::Network, true), "{cut}");
    drop(write);
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
    let config = SshConfig { proxy_jump: Some(jump), ..config(&server) };
    works(&server, &config);
    for (known, unknown) in
        [(server.known_line() + &first.known_line(), second.port), (server.known_line() + &second.known_line(), first.port)]
    {
        fs::write(server.known_hosts(), known).expect("written");
        let refused = refusal(&server.target(), &config);
        assert_eq!(refused.kind, ErrorKind::HostKey, "{refused}");
        assert!(refused.to_string().contains(&unknown.to_string()), "{refused}");
    }
}

#[test]
fn compression_is_followed() {
    let server = Sshd::start("");
    works(&server, &SshConfig { compression: true, ..config(&server) });
}

#[test]
fn what_only_ssh_can_do_is_refused() {
    let server = Sshd::start("");
    fs::write(server.path("ssh_config"), "Host *\n  ProxyCommand nc %h %p\n").expect("written");
    let refused = connect(&server.target(), &config(&server), Start::Command("true"), &Stop::default()).expect_err("refused");
    assert!(refused.kind == ErrorKind::Unsupported && refused.to_string().contains("ssh_config:2"), "{refused}");
}

/// Not a test: what the next one runs where there is no `ssh`.
#[test]
#[ignore = "it needs another environment"]
fn connects_by_key_file() {
    let dir = std::path::PathBuf::from(std::env::var("SY_TEST_DIR").expect("set"));
    let target = Target { user: None, host: "127.0.0.1".into(), port: std::env::var("SY_TEST_PORT").expect("set").parse().ok() };
    let config = SshConfig {
        key_file: Some(dir.join("id")),
        known_hosts: Some(dir.join("known_hosts")),
        config_file: Some(dir.join("ssh_config")),
        ..SshConfig::default()
    };
    assert_eq!(finish(open(&target, &config, Start::Command("echo fine"))).0, b"fine\n");
}

#[test]
fn it_is_used_where_there_is_no_ssh() {
    let server = Sshd::start("");
    let ran = Command::new(std::env::current_exe().expect("a program"))
        .args(["--ignored", "--exact", "connects_by_key_file"])
        .env("SY_TEST_PORT", server.port.to_string())
        .env("SY_TEST_DIR", server.dir.path())
        .env("PATH", server.dir.path())
        .output()
        .expect("ran");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
