//! The main job on one node: what one client says in a room, every client in it hears.

mod common;

use common::{Client, Gateway, json};

#[tokio::test]
async fn everybody_in_the_room_hears_it_and_nobody_else() {
    let node = Gateway::open("");
    let mut speaker = Client::subscribed(node.clients, "ann", "lobby").await;
    let mut listener = Client::subscribed(node.clients, "ben", "lobby").await;
    let mut elsewhere = Client::subscribed(node.clients, "cem", "other").await;
    speaker.publish("lobby", &json!({"text": "hello"})).await;
    assert_eq!(listener.hear("lobby").await, json!({"text": "hello"}));
    node.publish("other", &json!("from the backend")).await;
    assert_eq!(elsewhere.hear("other").await, json!("from the backend"));
    drop((speaker, listener, elsewhere));
    node.stop().await;
}
