//! The HTTP door.

use proptest::{
    prelude::{Strategy, any},
    strategy::ValueTree,
    test_runner::TestRunner,
};

use super::{assert_stands, converse, server};
use crate::{
    mutations::{corpus, mutation, valid},
    support::Raw,
};

/// An answer, unless the client hung up before its request was complete.
fn assert_answered(said: &[u8], heard: &[u8]) {
    let text = String::from_utf8_lossy(said);
    let complete = text.trim_start_matches(['\r', '\n']).contains("\r\n\r\n");
    assert!(!complete || !heard.is_empty(), "hung up on without a sentence: {text:?}");
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."), "{text:?}: {:?}", String::from_utf8_lossy(heard));
}

#[tokio::test]
async fn the_http_door_stands_whatever_is_sent_and_answers_with_a_sentence() {
    let server = server().await;
    let mut bystander = Raw::connect(&server).await;
    for (name, request) in corpus("http") {
        let heard = converse(server.http_addr(), &request, true, |_| false).await;
        assert_answered(&request, &heard);
        assert!(!name.starts_with("valid") || heard.starts_with(b"HTTP/1.") || heard.is_empty(), "{name}");
    }
    let requests = valid("http");
    let session = proptest::collection::vec((any::<usize>(), proptest::collection::vec(mutation(), 0..4)), 1..4);
    let mut runner = TestRunner::deterministic();
    for nth in 0..400 {
        let mut said = Vec::new();
        for (which, mutations) in session.new_tree(&mut runner).unwrap().current() {
            let mut request = requests[which % requests.len()].clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut request, &requests));
            said.extend(request);
        }
        let heard = converse(server.http_addr(), &said, true, |_| false).await;
        assert_answered(&said, &heard);
        if nth % 20 == 19 {
            assert_stands(&server, &mut bystander).await;
        }
    }
    server.stop().await;
}
