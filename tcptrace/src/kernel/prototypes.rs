//! What the kernel programs take their functions' arguments for, checked against the kernel's own prototypes: an argument that moved
//! or changed its kind refuses the hook before anything is read from it.

use std::collections::HashMap;

use super::btf::{
    Btf, Error,
    prototype::{Prototype, Type},
};

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arg {
    /// Not read.
    Any,
    /// Pointer to this struct.
    To(&'static str),
    /// Integer or boolean.
    Number,
}
use Arg::{Any, Number, To};

/// Where a prototype is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Function,
    Tracepoint,
}
use Place::{Function, Tracepoint};

struct Expected {
    place: Place,
    name: &'static str,
    /// The first ones; there may be more, unless `whole`.
    args: &'static [Arg],
    /// The result is read behind the last argument.
    whole: bool,
    /// The result, where a program reads it.
    returns: Option<Arg>,
}

const fn function(name: &'static str, args: &'static [Arg], returns: Option<Arg>) -> Expected {
    Expected { place: Function, name, args, whole: false, returns }
}

const fn tracepoint(name: &'static str, args: &'static [Arg]) -> Expected {
    Expected { place: Tracepoint, name, args, whole: false, returns: None }
}

const SOCK: Arg = To("sock");
const REQUEST: Arg = To("request_sock");

/// Every hook whose arguments moved between kernels, or may. Checked: Linux 6.1, 6.12, 6.18, 7.2.
const EXPECTED: &[Expected] = &[
    function("security_sock_graft", &[SOCK, To("socket")], None),
    function("tcp_conn_request", &[Any, Any, SOCK, To("sk_buff")], None),
    // Linux 7.2 dropped the third argument; older kernels return nothing.
    function(HASH_ADD, &[SOCK, REQUEST], None),
    function("__inet_csk_reqsk_queue_drop", &[SOCK, REQUEST, Number], Some(Number)),
    function("inet_csk_complete_hashdance", &[SOCK, SOCK, REQUEST, Number], Some(SOCK)),
    // Six arguments, seven in some kernels.
    function("tcp_v4_syn_recv_sock", &[SOCK, To("sk_buff"), REQUEST, Any, REQUEST, Any], Some(SOCK)),
    function("tcp_v6_syn_recv_sock", &[SOCK, To("sk_buff"), REQUEST, Any, REQUEST, Any], Some(SOCK)),
    function("cookie_v4_init_sequence", &[To("sk_buff")], None),
    function("cookie_v6_init_sequence", &[To("sk_buff")], None),
    // Four arguments, five up to Linux 6.1.
    function("tcp_get_cookie_sock", &[SOCK, To("sk_buff"), REQUEST, Any], Some(SOCK)),
    Expected {
        place: Function,
        name: "tcp_try_fastopen",
        args: &[SOCK, To("sk_buff"), REQUEST, Any, Any],
        whole: true,
        returns: Some(SOCK),
    },
    function("inet_reqsk_clone", &[REQUEST, SOCK], Some(REQUEST)),
    function("tcp_req_err", &[SOCK, Number, Number], None),
    // Five arguments, six from Linux 6.14.
    function("tcp_check_req", &[SOCK, To("sk_buff"), REQUEST, Number, Any], Some(SOCK)),
    function("tcp_time_wait", &[SOCK, Number, Number], None),
    function("inet_twsk_kill", &[To("inet_timewait_sock")], None),
    function(CAST, &[Any, Number], None),
    tracepoint("timer_start", &[To("timer_list")]),
    tracepoint("timer_cancel", &[To("timer_list")]),
    tracepoint("timer_expire_entry", &[To("timer_list")]),
    tracepoint("timer_expire_exit", &[To("timer_list")]),
    tracepoint("sk_data_ready", &[SOCK]),
    // The reason came with Linux 5.17, the socket behind it with 6.11.
    tracepoint(DROPPED, &[To("sk_buff"), Any, Number]),
    tracepoint("tcp_retransmit_synack", &[SOCK, REQUEST]),
    tracepoint("inet_sock_set_state", &[SOCK, Number, Number]),
    tracepoint("sched_process_fork", &[To("task_struct"), To("task_struct")]),
];

/// What programs may call from Linux 6.2 on, to use a bare address as a pointer to a struct.
const CAST: &str = "bpf_rdonly_cast";
const DROPPED: &str = "kfree_skb";
/// Void up to some kernel, then bool.
const HASH_ADD: &str = "inet_csk_reqsk_queue_hash_add";

/// What this kernel's prototypes say about the hooks.
#[derive(Clone, Debug, Default)]
pub struct Prototypes {
    functions: HashMap<String, Prototype>,
    tracepoints: HashMap<String, Prototype>,
}

impl Prototypes {
    /// Look every expected one up.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn read(btf: &Btf) -> Result<Self, Error> {
        let names = |place| EXPECTED.iter().filter(|e| e.place == place).map(|e| e.name).collect::<Vec<_>>();
        Ok(Self { functions: btf.functions(&names(Function))?, tracepoints: btf.tracepoints(&names(Tracepoint))? })
    }

    /// Why the function must not be hooked; `None`: it is as the programs expect, or they expect nothing of it.
    #[must_use]
    pub fn refuse_function(&self, name: &str) -> Option<String> {
        refuse(Function, name, &self.functions)
    }

    /// The same for a tracepoint.
    #[must_use]
    pub fn refuse_tracepoint(&self, name: &str) -> Option<String> {
        refuse(Tracepoint, name, &self.tracepoints)
    }

    /// Number of a function's arguments, by which its result is found; `None` if it is not described.
    #[must_use]
    pub fn arity(&self, function: &str) -> Option<usize> {
        self.functions.get(function).map(|p| p.args.len())
    }

    /// Number of `bpf_rdonly_cast`; `None` where there is no such function to call.
    #[must_use]
    pub fn cast(&self) -> Option<u32> {
        let usable = self.refuse_function(CAST).is_none();
        self.functions.get(CAST).filter(|_| usable).map(|p| p.number)
    }

    /// Does `kfree_skb` say whose segment it was?
    #[must_use]
    pub fn drops_name_sockets(&self) -> bool {
        self.tracepoints.get(DROPPED).and_then(|p| p.args.get(3)).is_some_and(|arg| SOCK.fits(arg))
    }

    /// Does `inet_csk_reqsk_queue_hash_add` say whether it added?
    #[must_use]
    pub fn hash_add_tells(&self) -> bool {
        self.functions.get(HASH_ADD).is_some_and(|p| p.returns == Type::Integer)
    }
}

fn refuse(place: Place, name: &str, found: &HashMap<String, Prototype>) -> Option<String> {
    let expected = EXPECTED.iter().find(|e| e.place == place && e.name == name)?;
    let Some(prototype) = found.get(name) else {
        return Some(match place {
            Function => "this kernel has no such function, or it was inlined".to_owned(),
            Tracepoint => "this kernel has no such tracepoint".to_owned(),
        });
    };
    let (found, wanted) = (prototype.args.len(), expected.args.len());
    if found < wanted || expected.whole && found != wanted {
        return Some(format!("it has {found} arguments here, not {wanted}"));
    }
    for (i, (arg, ty)) in expected.args.iter().zip(&prototype.args).enumerate() {
        if !arg.fits(ty) {
            return Some(format!("its argument {} is not {arg} here", i + 1));
        }
    }
    let returns = expected.returns.filter(|arg| !arg.fits(&prototype.returns))?;
    Some(format!("it does not return {returns} here"))
}

impl Arg {
    fn fits(self, ty: &Type) -> bool {
        match self {
            Any => true,
            To(name) => matches!(ty, Type::Pointer(to) if to == name),
            Number => *ty == Type::Integer,
        }
    }
}

impl std::fmt::Display for Arg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Any => f.write_str("anything"),
            To(name) => write!(f, "a struct {name} *"),
            Number => f.write_str("a number"),
        }
    }
}

#[cfg(test)]
mod tests;
