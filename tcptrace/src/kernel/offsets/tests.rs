//! The running kernel's fields. What differs between kernels is resolved from made-up type information in `btf::tests`.

use super::*;
use tcptrace_common::offsets::ABSENT;

fn running() -> Resolved {
    from_running_kernel().expect("the tests need a kernel that tcptrace supports").0
}

#[test]
fn the_running_kernel_has_what_is_required() {
    let r = running();
    let o = r.offsets;
    // Places that no kernel has ever changed: `sock_common` starts every socket.
    assert_eq!((o.daddr, o.saddr, o.dport, o.num, o.family, o.state), (0, 4, 12, 14, 16, 18));
    assert_eq!((o.req_dport, o.req_num), (12, 14));
    assert!(o.rtt_min != ABSENT && o.qlen != ABSENT && o.task_comm != ABSENT && o.socket_sk != ABSENT);
    for (absent, spec) in r.absent.iter().flat_map(|a| FIELDS.iter().filter(|s| s.name == a.name).map(move |s| (a, s)))
    {
        assert!(!spec.required, "{absent}");
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if release.starts_with("6.18.44-fc") {
        assert_eq!((o.err, o.shutdown, o.segs_in, o.bytes_acked, o.snd_una), (284, 575, 1760, 1824, 1672));
        assert_eq!((o.qlen, o.ack_backlog, o.tw_substate, o.num_retrans), (1024, o.max_ack_backlog - 4, 140, 146));
        assert_eq!(r.bitfields.syn_fastopen_child, Bits { offset: 1916, shift: 7, mask: 1 });
        assert_eq!(r.absent, []);
    }
}

#[test]
fn a_field_that_another_stands_in_for_is_not_missed() {
    let left = |names: &[&'static str]| {
        let absent = |&name| Absent { name, field: name.to_owned(), reason: "no such field".to_owned() };
        let mut absent: Vec<_> = names.iter().map(absent).collect();
        forgive(&mut absent);
        absent.iter().map(|a| a.name).collect::<Vec<_>>()
    };
    // As on Linux 6.1 and 6.12.
    assert_eq!(left(&["sk_ino", "syn_fastopen_child"]), [""; 0]);
    assert_eq!(left(&["syn_fastopen_child", "syn_data_acked"]), ["syn_fastopen_child", "syn_data_acked"]);
    assert_eq!(left(&["sk_ino", "socket_inode", "qlen"]), ["sk_ino", "socket_inode", "qlen"]);
    assert_eq!(left(&["syn_data_acked"]), ["syn_data_acked"]);
}

#[test]
fn bitfields_lie_in_one_byte() {
    let b = running().bitfields;
    for bits in [b.sack_ok, b.tstamp_ok, b.wscale_ok, b.snd_wscale, b.rcv_wscale, b.nonagle, b.syn_data_acked] {
        assert_ne!(bits, Bits::UNKNOWN);
        assert!(bits.shift < 8 && bits.mask << bits.shift < 256, "{bits:?}");
    }
    assert_eq!((b.snd_wscale.mask, b.rcv_wscale.mask, b.tstamp_ok.mask), (15, 15, 1));
}

#[test]
fn a_required_field_that_is_missing_names_itself() {
    // Sound type information that describes nothing.
    let empty: Vec<u8> = [0x0001_eb9f_u32, 24, 0, 0, 0, 1].iter().flat_map(|w| w.to_le_bytes()).chain([0]).collect();
    let error = resolve(&Btf::parse(empty).expect("sound")).expect_err("nothing is there");
    assert_eq!(error.exit_status(), 4);
    assert!(error.to_string().contains("sock.__sk_common.skc_state (no such struct)"), "{error}");
}
