//! Messages of every shape, for the property tests of this crate.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::{collection, option, prelude::*};
use roomcast_shared::{
    protocol::{
        command::{
            ChannelRequest, Command, ConnectRequest, EmptyRequest, FilterNode, HistoryRequest, PublishRequest,
            RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest,
        },
        reply::{
            CodedPush, ConnectPush, ConnectResult, EmptyResult, ErrorReply, HistoryResult, Membership, MessagePush,
            PresenceResult, PresenceStatsResult, Push, RefreshPush, RefreshResult, Reply, RoomResult, RpcResult,
            SubRefreshResult, SubscribePush, SubscribeResult, UnsubscribePush,
        },
    },
    publication::{ClientInfo, Publication},
};

/// Text with all that JSON has to escape.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z:#$,]{1,8}", any::<String>()]
}

/// JSON values, compact, or nothing.
pub(crate) fn payload() -> impl Strategy<Value = Bytes> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    prop_oneof![1 => Just(Bytes::new()), 9 => value.prop_map(|value| value.to_string().into())]
}

fn boxed<T: std::fmt::Debug>(inner: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Box<T>>> {
    option::of(inner.prop_map(Box::new))
}

fn channel_request() -> impl Strategy<Value = ChannelRequest> {
    text().prop_map(|channel| ChannelRequest { channel })
}

fn filter() -> impl Strategy<Value = FilterNode> {
    let leaf = (text(), text(), text(), text(), collection::vec(text(), 0..3))
        .prop_map(|(op, key, cmp, val, vals)| FilterNode { op, key, cmp, val, vals, nodes: Vec::new() });
    leaf.prop_recursive(3, 8, 3, |inner| {
        (text(), collection::vec(inner, 0..3)).prop_map(|(op, nodes)| FilterNode { op, nodes, ..FilterNode::default() })
    })
}

fn subscribe() -> impl Strategy<Value = SubscribeRequest> {
    (
        (text(), text(), text(), text(), any::<u64>(), any::<i64>()),
        (payload(), boxed(filter()), any::<[bool; 4]>(), any::<i32>()),
    )
        .prop_map(|((channel, token, epoch, delta, offset, flag), (data, tf, bits, kind))| {
            let [recover, positioned, recoverable, join_leave] = bits;
            SubscribeRequest {
                channel,
                token,
                recover,
                epoch,
                offset,
                data,
                positioned,
                recoverable,
                join_leave,
                delta,
                tf,
                flag,
                kind,
            }
        })
}

fn connect() -> impl Strategy<Value = ConnectRequest> {
    (
        (text(), text(), text(), any::<i64>(), payload()),
        collection::hash_map(text(), subscribe(), 0..3),
        collection::hash_map(text(), text(), 0..3),
    )
        .prop_map(|((token, name, version, flag, data), subs, headers): (_, HashMap<_, _>, _)| ConnectRequest {
            token,
            data,
            subs,
            name,
            version,
            headers,
            flag,
        })
}

fn history() -> impl Strategy<Value = HistoryRequest> {
    let since = (any::<u64>(), text()).prop_map(|(offset, epoch)| StreamPosition { offset, epoch });
    (text(), any::<i32>(), option::of(since), any::<bool>())
        .prop_map(|(channel, limit, since, reverse)| HistoryRequest { channel, limit, since, reverse })
}

/// Commands with any of their parts.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let publish =
        (text(), payload(), any::<i32>()).prop_map(|(channel, data, kind)| PublishRequest { channel, data, kind });
    let rpc = (text(), payload()).prop_map(|(method, data)| RpcRequest { method, data });
    let sub_refresh =
        (text(), text(), any::<i32>()).prop_map(|(channel, token, kind)| SubRefreshRequest { channel, token, kind });
    (
        (any::<u32>(), boxed(connect()), boxed(subscribe()), boxed(publish), boxed(history()), boxed(rpc)),
        (option::of(channel_request()), option::of(channel_request()), option::of(channel_request())),
        (
            option::of(Just(EmptyRequest {})),
            option::of(payload().prop_map(|data| SendRequest { data })),
            option::of(text().prop_map(|token| RefreshRequest { token })),
            boxed(sub_refresh),
        ),
    )
        .prop_map(|(large, (unsubscribe, presence, presence_stats), (ping, send, refresh, sub_refresh))| {
            let (id, connect, subscribe, publish, history, rpc) = large;
            Command {
                id,
                connect,
                subscribe,
                unsubscribe,
                publish,
                presence,
                presence_stats,
                history,
                ping,
                send,
                rpc,
                refresh,
                sub_refresh,
            }
        })
}

fn client_info() -> BoxedStrategy<ClientInfo> {
    (text(), text(), payload(), payload())
        .prop_map(|(user, client, conn_info, chan_info)| ClientInfo { user, client, conn_info, chan_info })
        .boxed()
}

/// Publications with any of their parts.
pub(crate) fn publication() -> BoxedStrategy<Publication> {
    let offset = prop_oneof![Just(0), any::<u64>()];
    let tags = collection::btree_map(text(), text(), 0..3);
    (payload(), option::of(client_info()), offset, tags, any::<bool>())
        .prop_map(|(data, info, offset, tags, delta)| Publication { data, info, offset, tags, delta })
        .boxed()
}

fn subscribe_result() -> BoxedStrategy<SubscribeResult> {
    ((any::<u32>(), text(), any::<u64>(), payload()), collection::vec(publication(), 0..3), any::<[bool; 6]>())
        .prop_map(|((ttl, epoch, offset, data), publications, bits)| {
            let [expires, recoverable, recovered, positioned, was_recovering, delta] = bits;
            SubscribeResult {
                expires,
                ttl,
                recoverable,
                epoch,
                publications,
                recovered,
                offset,
                positioned,
                data,
                was_recovering,
                delta,
            }
        })
        .boxed()
}

fn connect_result() -> BoxedStrategy<ConnectResult> {
    (
        (text(), text(), text(), text(), payload()),
        (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>(), any::<i64>()),
        collection::btree_map(text(), subscribe_result(), 0..3),
    )
        .prop_map(
            |((client, version, session, node, data), (ttl, ping, expires, pong, time), subs): (
                _,
                _,
                BTreeMap<_, _>,
            )| {
                let subs = subs.into_iter().map(|(room, result)| RoomResult { room, result }).collect();
                ConnectResult { client, version, expires, ttl, data, subs, ping, pong, session, node, time }
            },
        )
        .boxed()
}

/// Pushes with any of their parts.
pub(crate) fn push() -> BoxedStrategy<Push> {
    let membership = || boxed(option::of(client_info()).prop_map(|info| Membership { info }));
    let unsubscribe = (any::<u32>(), text()).prop_map(|(code, reason)| UnsubscribePush { code, reason });
    let disconnect = (any::<u32>(), text()).prop_map(|(code, reason)| CodedPush { code, reason });
    (
        (text(), boxed(publication()), membership(), membership(), option::of(unsubscribe), option::of(disconnect)),
        (
            option::of(payload().prop_map(|data| MessagePush { data })),
            boxed(subscribe_result().prop_map(SubscribePush::from)),
            boxed(connect_result().prop_map(ConnectPush::from)),
            option::of((any::<bool>(), any::<u32>()).prop_map(|(expires, ttl)| RefreshPush { expires, ttl })),
        ),
    )
        .prop_map(|((channel, publication, join, leave, unsubscribe, disconnect), rest)| {
            let (message, subscribe, connect, refresh) = rest;
            Push { channel, publication, join, leave, unsubscribe, message, subscribe, connect, disconnect, refresh }
        })
        .boxed()
}

fn presence() -> BoxedStrategy<PresenceResult> {
    collection::btree_map(text(), client_info(), 0..3).prop_map(|presence| PresenceResult { presence }).boxed()
}

fn history_result() -> BoxedStrategy<HistoryResult> {
    (collection::vec(publication(), 0..3), text(), any::<u64>())
        .prop_map(|(publications, epoch, offset)| HistoryResult { publications, epoch, offset })
        .boxed()
}

/// Replies with any of their parts.
pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    let error = (any::<u32>(), text(), any::<bool>()).prop_map(|(code, message, temporary)| ErrorReply {
        code,
        message,
        temporary,
    });
    let refresh = (text(), text(), any::<bool>(), any::<u32>())
        .prop_map(|(client, version, expires, ttl)| RefreshResult { client, version, expires, ttl });
    let sub_refresh = (any::<bool>(), any::<u32>()).prop_map(|(expires, ttl)| SubRefreshResult { expires, ttl });
    let stats = (any::<u32>(), any::<u32>())
        .prop_map(|(num_clients, num_users)| PresenceStatsResult { num_clients, num_users });
    (
        (any::<u32>(), option::of(error), boxed(push()), boxed(connect_result()), boxed(subscribe_result())),
        (option::of(Just(EmptyResult {})), option::of(Just(EmptyResult {})), boxed(refresh), option::of(sub_refresh)),
        (option::of(presence()), option::of(stats), boxed(history_result())),
        option::of(payload().prop_map(|data| RpcResult { data })),
    )
        .prop_map(
            |((id, error, push, connect, subscribe), (unsubscribe, publish, refresh, sub_refresh), room, rpc)| {
                let (presence, presence_stats, history) = room;
                Reply {
                    id,
                    error,
                    push,
                    connect,
                    subscribe,
                    unsubscribe,
                    publish,
                    presence,
                    presence_stats,
                    history,
                    rpc,
                    refresh,
                    sub_refresh,
                }
            },
        )
}
