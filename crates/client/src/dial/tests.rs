use roundsman_protocol::{Codec, Namespace};
use tokio::net::TcpListener;

use super::{spoken::FRESH, *};

/// One try, with what is remembered of others.
async fn dial_with(server: &Arc<str>, hello: &Hello, spoken: &mut Spoken) -> Result<Dialed, Attempt> {
    let dialed = dial(server, hello, &spoken.order(server), PATIENT).await;
    if let Ok(dialed) = &dialed {
        spoken.note(server, dialed.version);
    }
    dialed
}

/// Answers each greeting with the next of these, and returns what it was told.
async fn server(answers: Vec<String>) -> (Arc<str>, tokio::task::JoinSet<Vec<Hello>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Arc::from(listener.local_addr().unwrap().to_string());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut heard = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut framed = LengthDelimitedCodec::builder().new_framed(stream);
            heard.push(serde_json::from_slice(&framed.next().await.unwrap().unwrap()).unwrap());
            framed.send(Bytes::from(answer)).await.unwrap();
        }
        heard
    });
    (addr, tasks)
}

fn refusal(version: u32) -> String {
    format!(r#"{{"ok":false,"error":"this server speaks version {version} of the protocol, the client version 9"}}"#)
}

const OLD_WELCOME: &str = r#"{"ok":true,"version":"0.1.0","server":"roundsman-1"}"#;
const PATIENT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn it_falls_back_step_by_step_and_remembers_for_a_while() {
    let hello = Hello::new(Codec::Postcard, Namespace::default(), None);
    let upgraded = serde_json::to_string(&Welcome::accept(Version::V3, "0.2.0", "roundsman-2")).unwrap();
    let answers = [&refusal(1), &refusal(1), OLD_WELCOME, OLD_WELCOME, &upgraded].map(str::to_owned);
    let (addr, mut tasks) = server(answers.to_vec()).await;
    let mut spoken = Spoken::default();
    let mut versions = Vec::new();
    for _ in 0..3 {
        versions.push(dial_with(&addr, &hello, &mut spoken).await.unwrap().version);
    }
    assert_eq!(versions, [Version::V1, Version::V1, Version::V3]);
    let heard = tasks.join_next().await.unwrap().unwrap();
    let said: Vec<_> = heard.iter().map(|hello| (hello.roundsman, hello.oldest, hello.newest)).collect();
    let again = (1, Some(1), Some(3));
    assert_eq!(said, [(3, Some(1), None), (2, Some(1), Some(3)), again, again, again]);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_grows_old() {
    let (server, mut spoken) = (Arc::from("a:1"), Spoken::default());
    assert_eq!(spoken.order(&server), Version::ALL);
    spoken.note(&server, Version::V1);
    assert_eq!(spoken.order(&server), [Version::V1, Version::V3, Version::V2]);
    assert_eq!(spoken.order("b:1"), Version::ALL);
    tokio::time::advance(FRESH - Duration::from_secs(1)).await;
    spoken.note(&server, Version::V1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(spoken.order(&server), Version::ALL, "though it was used meanwhile");
    spoken.note(&server, Version::V2);
    spoken.note(&server, Version::V3);
    assert_eq!(spoken.order(&server), Version::ALL);
}

#[tokio::test]
async fn a_server_that_speaks_nothing_of_ours_is_a_sentence() {
    let hello = Hello::new(Codec::Postcard, Namespace::default(), None);
    let dialed = async |answers: Vec<String>| {
        let (addr, _tasks) = server(answers).await;
        dial_with(&addr, &hello, &mut Spoken::default()).await.unwrap_err()
    };
    let strange = dialed(vec![refusal(7), refusal(8), refusal(9)]).await;
    assert!(strange.refused && strange.reason.contains("speaks version 7"), "{strange:?}");
    let newer = r#"{"ok":false,"roundsman":9,"oldest":7,"error":"this server speaks versions 7 to 9 of the protocol"}"#;
    assert!(dialed(vec![newer.to_owned()]).await.reason.contains("7 to 9"), "told at once");
    let odd = dialed(vec![r#"{"ok":true,"roundsman":4}"#.to_owned()]).await;
    assert!(odd.refused && odd.reason.contains("not offered"), "{odd:?}");
}

#[test]
fn addresses_of_one_name_are_told_apart_only_where_that_says_more() {
    let server: Arc<str> = Arc::from("discovery:5555");
    let at = |n: u8| SocketAddr::from(([10, 0, 0, n], 5555));
    let away = |reason: &str| Failure::Away(reason.to_owned());
    let all = attempt(&server, &[(at(1), away("connection refused")), (at(2), away("connection refused"))]);
    assert_eq!((all.reason.as_str(), all.refused), ("connection refused", false));
    let each = attempt(&server, &[(at(1), away("host unreachable")), (at(2), Failure::Refused("it is full".into()))]);
    assert_eq!(
        (each.reason.as_str(), each.refused),
        ("10.0.0.1:5555: host unreachable, 10.0.0.2:5555: it is full", true)
    );
    assert_eq!(distinct([at(1), at(2), at(1)].into_iter()), [at(1), at(2)]);
}
