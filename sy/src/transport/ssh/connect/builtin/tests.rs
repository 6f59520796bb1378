//! Passwords, against a server that is set up to take them.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use russh::keys::{Algorithm, PrivateKey, key::safe_rng};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Response, Server as _, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};

use super::super::{Failure, Start, Stream, Target, connect};
use crate::error::ErrorKind;
use crate::sync::Stop;
use crate::transport::config::Secret;
use crate::transport::ssh::{HostKeyPolicy, SshConfig};

const PASSWORD: &str = "correct horse";

/// Asks for what it was told to, and notes what it hears.
#[derive(Clone)]
struct Fake {
    methods: Vec<MethodKind>,
    /// Asked one after the other; `true` if to be seen on a screen.
    questions: &'static [(&'static str, bool)],
    heard: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn hear(&self, what: &str) {
        self.heard.lock().expect("a list").push(what.to_owned());
    }
}

impl server::Server for Fake {
    type Handler = Self;
    fn new_client(&mut self, _: Option<SocketAddr>) -> Self {
        self.clone()
    }
}

impl server::Handler for Fake {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.hear(&format!("{user}:{password}"));
        Ok(if password == PASSWORD { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(&'a mut self, _: &str, _: &str, response: Option<Response<'a>>) -> Result<Auth, russh::Error> {
        let Some(response) = response else {
            let prompts = self.questions.iter().map(|(text, echo)| ((*text).into(), *echo)).collect::<Vec<_>>();
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() });
        };
        let replies: Vec<String> = response.map(|reply| String::from_utf8_lossy(&reply).into_owned()).collect();
        self.hear(&format!("answers {replies:?}"));
        Ok(if replies == [PASSWORD] { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(&mut self, _: Channel<Msg>, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        session.data(channel, command.to_vec())?;
        session.exit_status_request(channel, 0)?;
        session.eof(channel)?;
        session.close(channel)
    }
}

/// A server that takes `methods`, and what it hears.
fn serve(methods: &[MethodKind], questions: &'static [(&'static str, bool)]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let mut fake = Fake { methods: methods.to_vec(), questions, heard: Arc::clone(&heard) };
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(socket.local_addr().expect("a port").port()).expect("told");
            let config = server::Config {
                methods: MethodSet::from(fake.methods.as_slice()),
                auth_rejection_time: std::time::Duration::ZERO,
                keys: vec![PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key")],
                ..server::Config::default()
            };
            let _ = fake.run_on_socket(Arc::new(config), &socket).await;
        });
    });
    (told.recv().expect("a port"), heard)
}

fn attempt(port: u16, password: &str) -> (Vec<u8>, Failure) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("config"), "IdentityAgent none\nIdentityFile none\n").expect("written");
    let config = SshConfig {
        password: Secret::from_text(password),
        config_file: Some(dir.path().join("config")),
        known_hosts: Some(dir.path().join("known")),
        host_key_policy: HostKeyPolicy::AcceptNew,
        ..SshConfig::default()
    };
    let target = Target { user: Some("u".into()), host: "127.0.0.1".into(), port: Some(port) };
    let Stream { read, write, mut link } = connect(&target, &config, Start::Command("hello"), &Stop::default()).expect("begins to connect");
    let mut out = Vec::new();
    std::fs::File::from(read).read_to_end(&mut out).expect("readable");
    drop(write);
    (out, link.failure())
}

fn refusal(failure: Failure) -> String {
    match failure {
        Failure::Connection(error) => {
            assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
            error.to_string()
        }
        Failure::Command { .. } => panic!("it got in: {failure:?}"),
    }
}

#[test]
fn a_password_opens() {
    let (port, _) = serve(&[MethodKind::Password], &[]);
    let (out, failure) = attempt(port, PASSWORD);
    assert_eq!(out, b"hello");
    assert!(matches!(failure, Failure::Command { code: Some(0), .. }), "{failure:?}");
}

#[test]
fn a_wrong_password_does_not_and_is_not_shown() {
    let (port, heard) = serve(&[MethodKind::Password], &[]);
    let text = refusal(attempt(port, "wrong horse").1);
    assert!(text.contains("password") && !text.contains("horse"), "{text}");
    // Once is enough: another try with the same might lock the account.
    assert_eq!(*heard.lock().expect("a list"), ["u:wrong horse"]);
}

#[test]
fn a_host_that_asks_is_told_the_password() {
    let (port, _) = serve(&[MethodKind::KeyboardInteractive], &[("Password: ", false)]);
    assert_eq!(attempt(port, PASSWORD).0, b"hello");
}

#[test]
fn a_host_that_asks_for_more_is_not_told() {
    for questions in [&[("Password: ", false), ("Code: ", false)][..], &[("Name: ", true)][..]] {
        let (port, heard) = serve(&[MethodKind::KeyboardInteractive], questions);
        let text = refusal(attempt(port, PASSWORD).1);
        assert!(text.contains(questions.last().expect("a question").0.trim()), "{text}");
        assert!(heard.lock().expect("a list").is_empty());
    }
}
