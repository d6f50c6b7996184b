//! Arguments that moved, and this kernel's.

use super::*;
use crate::kernel::btf;

fn to(name: &str) -> Type {
    Type::Pointer(name.to_owned())
}

/// This kernel's view of `name`: `args`, and what it returns.
fn kernel(name: &str, args: &[Type], returns: Type) -> Prototypes {
    let prototype = Prototype { number: 1, args: args.to_vec(), returns };
    let one = HashMap::from([(name.to_owned(), prototype)]);
    Prototypes { functions: one.clone(), tracepoints: one }
}

#[test]
fn the_listener_is_the_third_argument_of_tcp_conn_request() {
    let name = "tcp_conn_request";
    let refusal = |args: &[Type]| kernel(name, args, Type::Integer).refuse_function(name);
    let (ops, skb) = (to("request_sock_ops"), to("sk_buff"));
    assert_eq!(refusal(&[ops.clone(), to("tcp_request_sock_ops"), to("sock"), skb.clone()]), None);
    assert_eq!(
        refusal(&[to("sock"), skb.clone(), ops.clone(), Type::Integer]).as_deref(),
        Some("its argument 3 is not a struct sock * here")
    );
    let swapped = [ops, to("tcp_request_sock_ops"), skb, to("sock")];
    assert_eq!(refusal(&swapped).as_deref(), Some("its argument 3 is not a struct sock * here"));
    assert_eq!(refusal(&[to("sock"), to("sk_buff")]).as_deref(), Some("it has 2 arguments here, not 4"));
}

#[test]
fn numbers_are_no_pointers() {
    let name = "__inet_csk_reqsk_queue_drop";
    let with =
        |third: Type| kernel(name, &[to("sock"), to("request_sock"), third], Type::Integer).refuse_function(name);
    assert_eq!(with(Type::Integer), None);
    assert_eq!(with(to("")).as_deref(), Some("its argument 3 is not a number here"));
}

#[test]
fn further_arguments_do_not_matter() {
    let name = "tcp_get_cookie_sock";
    let mut args = vec![to("sock"), to("sk_buff"), to("request_sock"), to("dst_entry"), Type::Integer];
    let five = kernel(name, &args, to("sock"));
    assert_eq!((five.refuse_function(name), five.arity(name)), (None, Some(5)));
    args.pop();
    let four = kernel(name, &args, to("sock"));
    assert_eq!((four.refuse_function(name), four.arity(name)), (None, Some(4)));
}

#[test]
fn unless_the_result_is_read_behind_the_last() {
    let name = "tcp_try_fastopen";
    let mut args = vec![to("sock"), to("sk_buff"), to("request_sock"), to("tcp_fastopen_cookie"), to("dst_entry")];
    assert_eq!(kernel(name, &args, to("sock")).refuse_function(name), None);
    args.push(Type::Integer);
    let refusal = kernel(name, &args, to("sock")).refuse_function(name);
    assert_eq!(refusal.as_deref(), Some("it has 6 arguments here, not 5"));
}

#[test]
fn a_result_that_is_read_is_checked() {
    let name = "inet_csk_complete_hashdance";
    let args = [to("sock"), to("sock"), to("request_sock"), Type::Integer];
    assert_eq!(kernel(name, &args, to("sock")).refuse_function(name), None);
    let refusal = kernel(name, &args, Type::Void).refuse_function(name);
    assert_eq!(refusal.as_deref(), Some("it does not return a struct sock * here"));
}

#[test]
fn hash_add_tells_on_newer_kernels() {
    let args = [to("sock"), to("request_sock")];
    for (returns, tells) in [(Type::Integer, true), (Type::Void, false)] {
        let kernel = kernel(HASH_ADD, &args, returns);
        assert_eq!((kernel.refuse_function(HASH_ADD), kernel.hash_add_tells()), (None, tells));
    }
}

#[test]
fn what_is_not_described_is_refused_and_what_nobody_reads_is_not() {
    let none = Prototypes::default();
    let refusal = none.refuse_function("tcp_conn_request");
    assert_eq!(refusal.as_deref(), Some("this kernel has no such function, or it was inlined"));
    assert_eq!(none.refuse_tracepoint("sk_data_ready").as_deref(), Some("this kernel has no such tracepoint"));
    assert_eq!(none.refuse_tracepoint("sys_exit"), None);
}

/// The oldest kernels' kfree_skb has no reason, and older ones' no socket.
#[test]
fn tracepoints_have_arguments_of_their_own() {
    let told = |args: &[Type]| {
        let kernel = kernel(DROPPED, args, Type::Void);
        (kernel.refuse_tracepoint(DROPPED), kernel.drops_name_sockets())
    };
    assert_eq!(told(&[to("sk_buff"), to(""), Type::Integer, to("sock")]), (None, true));
    assert_eq!(told(&[to("sk_buff"), to(""), Type::Integer]), (None, false));
    assert_eq!(told(&[to("sk_buff"), to("")]), (Some("it has 2 arguments here, not 3".to_owned()), false));
}

#[test]
fn this_kernel_is_as_expected() {
    let found = Prototypes::read(&Btf::read(btf::VMLINUX).expect("this kernel's BTF")).expect("sound");
    let refused: Vec<_> = EXPECTED
        .iter()
        .filter_map(|e| {
            Some((
                e.name,
                refuse(e.place, e.name, if e.place == Function { &found.functions } else { &found.tracepoints })?,
            ))
        })
        // What older kernels lack is refused there, and another hook serves.
        .filter(|(name, _)| !["sk_data_ready", DROPPED, "inet_reqsk_clone"].contains(name))
        .collect();
    assert_eq!(refused, []);
}
