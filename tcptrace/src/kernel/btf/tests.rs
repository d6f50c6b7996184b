//! Synthetic type information, damaged type information, and the running kernel's.

use proptest::prelude::*;

use super::*;

/// Writes BTF type by type; types are numbered from 1 in the order of the calls.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, info: u32, size: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        for word in [name, info, size].iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn int(&mut self, size: u32, bits: u32) -> u32 {
        self.add("int", kind::INT << 24, size, &[bits])
    }

    fn refer(&mut self, kind: u32, to: u32) -> u32 {
        self.add("", kind << 24, to, &[])
    }

    fn array(&mut self, of: u32, len: u32) -> u32 {
        self.add("", kind::ARRAY << 24, 0, &[of, of, len])
    }

    /// Members: (name, type, bit offset, bits of a bitfield).
    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let rest: Vec<u32> =
            members.iter().flat_map(|&(n, ty, at, bits)| [self.name(n), ty, bits << 24 | at]).collect();
        self.add(name, 1 << 31 | kind::STRUCT << 24 | members.len() as u32, size, &rest)
    }

    fn bytes(mut self) -> Vec<u8> {
        self.name("");
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let head = [0x0001_eb9f, 24, 0, types, types, strings];
        head.iter().flat_map(|w| w.to_le_bytes()).chain(self.types).chain(self.strings).collect()
    }

    fn btf(self) -> Btf {
        Btf::parse(self.bytes()).expect("sound")
    }
}

fn plain(byte: u32, size: u32) -> Field {
    Field { bit_offset: byte * 8, size, bit_width: None }
}

/// One of everything the kernel's structs are made of.
fn sample() -> Builder {
    let mut b = Builder::default();
    let u32_ = b.int(4, 32);
    let u8_ = b.int(1, 8);
    let ptr = b.refer(kind::PTR, u32_);
    let alias = b.add("u32", kind::TYPEDEF << 24, u32_, &[]);
    let alias = b.refer(kind::CONST, alias);
    let alias = b.refer(kind::VOLATILE, alias);
    let pair = b.structure("pair", 8, &[("t", u32_, 0, 0), ("v", alias, 32, 0)]);
    let pairs = b.array(pair, 3);
    let grid = b.array(pairs, 2);
    let union = b.add("", 1 << 31 | kind::UNION << 24 | 2, 4, &[]);
    // A union's members follow it like a struct's.
    let (addr, octets) = (b.name("addr"), b.name("octets"));
    for word in [addr, u32_, 0, octets, u8_, 0] {
        b.types.extend(word.to_le_bytes());
    }
    let inner =
        b.structure("", 8, &[("", union, 0, 0), ("flags", u8_, 32, 0), ("low", u8_, 40, 3), ("high", u8_, 43, 5)]);
    let inner = b.refer(kind::CONST, inner);
    b.structure(
        "outer",
        96,
        &[
            ("first", u32_, 0, 0),
            ("", inner, 64, 0),
            ("pairs", pairs, 128, 0),
            ("next", ptr, 320, 0),
            ("grid", grid, 384, 0),
            ("wide", u32_, 764, 7),
        ],
    );
    b.add("old", kind::STRUCT << 24 | 1, 4, &[]);
    let (bits, nibble) = (b.name("bits"), b.count + 1);
    for word in [bits, nibble, 8] {
        b.types.extend(word.to_le_bytes());
    }
    // An integer of 4 bits, 2 bits into its byte.
    b.int(1, 2 << 16 | 4);
    b.structure("twin", 4, &[("one", u32_, 0, 0)]);
    b.structure("twin", 8, &[("two", u32_, 32, 0)]);
    b.add("tcp_check_req", kind::FUNC << 24, 1, &[]);
    let (drop, reset) = (b.name("DROP"), b.name("RESET"));
    b.add("reason", kind::ENUM << 24 | 2, 4, &[drop, 7, reset, u32::MAX]);
    b.add("signed", 1 << 31 | kind::ENUM << 24 | 1, 4, &[reset, u32::MAX]);
    b.add("", kind::ENUM64 << 24 | 1, 8, &[drop, 1, 2]);
    b
}

#[test]
fn an_extract_keeps_numbers_and_nothing_else() {
    let mut b = Builder::default();
    let int = b.int(4, 32);
    b.structure("sock", 8, &[("a", int, 0, 0), ("b", int, 32, 0)]);
    let proto = b.add("", kind::FUNC_PROTO << 24, int, &[]);
    let f = b.add("f", kind::FUNC << 24, proto, &[]);
    b.add("g", kind::FUNC << 24, proto, &[]);
    let t = b.add("t", kind::TYPEDEF << 24, int, &[]);
    b.structure("t", 4, &[("a", int, 0, 0)]);
    let whole = Btf::parse(b.bytes()).expect("sound");
    let names = ["f", "t", "sock", "h"].map(str::to_owned).into();
    let bytes = whole.extract(&names).expect("sound");
    let small = Btf::parse(bytes.clone()).expect("sound");
    assert_eq!(small.types() as u32, t + 1, "nothing behind the last");
    assert!(small.field("sock", "a").is_err(), "neither a function nor a typedef");
    // As the loader sees it.
    let loader = aya::Btf::parse(&bytes, aya::Endianness::Little).expect("sound");
    let find = |name, kind| loader.id_by_type_name_kind(name, kind).ok();
    assert_eq!((find("f", aya_obj::btf::BtfKind::Func), find("t", aya_obj::btf::BtfKind::Typedef)), (Some(f), Some(t)));
    assert_eq!((find("g", aya_obj::btf::BtfKind::Func), find("t", aya_obj::btf::BtfKind::Struct)), (None, None));
}

/// `struct sock *f(const struct sock *, bool, struct unnamed by value, int *)` and a tracepoint.
#[test]
fn prototypes_of_functions_and_tracepoints() {
    use super::prototype::Type;
    let mut b = Builder::default();
    let int = b.int(4, 32);
    let sock = b.structure("sock", 8, &[("one", int, 0, 0)]);
    let constant = b.refer(kind::CONST, sock);
    let (to_sock, to_const, to_int) = (b.refer(kind::PTR, sock), b.refer(kind::PTR, constant), b.refer(kind::PTR, int));
    let flag = b.add("bool", kind::TYPEDEF << 24, int, &[]);
    let proto = b.add("", kind::FUNC_PROTO << 24 | 4, to_sock, &[0, to_const, 0, flag, 0, sock, 0, to_int]);
    let wanted = b.add("wanted", kind::FUNC << 24, proto, &[]);
    b.add("other", kind::FUNC << 24, proto, &[]);
    // A type of the name is no function.
    b.add("absent", kind::TYPEDEF << 24, int, &[]);
    let void = b.refer(kind::PTR, 0);
    let probe = b.add("", kind::FUNC_PROTO << 24 | 2, 0, &[0, void, 0, to_sock]);
    let to_probe = b.refer(kind::PTR, probe);
    b.add("btf_trace_event", kind::TYPEDEF << 24, to_probe, &[]);
    let btf = b.btf();
    let to = |name: &str| Type::Pointer(name.to_owned());
    let functions = btf.functions(&["wanted", "absent"]).expect("sound");
    assert_eq!(functions.keys().collect::<Vec<_>>(), ["wanted"]);
    assert_eq!(functions["wanted"].number, wanted);
    assert_eq!(functions["wanted"].args, [to("sock"), Type::Integer, Type::Other, to("")]);
    assert_eq!(functions["wanted"].returns, to("sock"));
    let tracepoints = btf.tracepoints(&["event", "missing"]).expect("sound");
    assert_eq!(tracepoints.keys().collect::<Vec<_>>(), ["event"]);
    assert_eq!((&tracepoints["event"].args[..], &tracepoints["event"].returns), (&[to("sock")][..], &Type::Void));
}

#[test]
fn finds_members_wherever_they_are() {
    let btf = sample().btf();
    let field = |path| btf.field("outer", path).expect(path);
    assert_eq!(field("first"), plain(0, 4));
    assert_eq!(field("addr"), plain(8, 4), "in an anonymous union in an anonymous, qualified struct");
    assert_eq!(field("octets"), plain(8, 1));
    assert_eq!(field("flags"), plain(12, 1));
    assert_eq!(field("pairs"), plain(16, 24));
    assert_eq!(field("pairs[2]"), plain(32, 8));
    assert_eq!(field("pairs[1].v"), plain(28, 4), "behind volatile, const and a typedef");
    assert_eq!(field("next"), plain(40, 8));
    assert_eq!(field("grid[1][2].v"), plain(48 + 24 + 16 + 4, 4));
    assert_eq!(field("low"), Field { bit_offset: 104, size: 1, bit_width: Some(3) });
    assert_eq!(field("high"), Field { bit_offset: 107, size: 1, bit_width: Some(5) });
    assert_eq!(field("wide"), Field { bit_offset: 764, size: 4, bit_width: Some(7) });
    assert_eq!(btf.field("old", "bits").expect("bits"), Field { bit_offset: 10, size: 1, bit_width: Some(4) });
    assert_eq!(btf.field("twin", "one").expect("one"), plain(0, 4));
    assert_eq!(btf.field("twin", "two").expect("two"), plain(4, 4), "in the second struct of that name");
    let number = |path| btf.place("twin", path).expect(path).0;
    assert!(number("one") < number("two"));
}

#[test]
fn says_what_is_absent() {
    let btf = sample().btf();
    for path in
        ["none", "next.v", "first.v", "pairs[3]", "first[0]", "pairs[x]", "pairs[1", "pairs1]", "", ".", "[0]", "a..b"]
    {
        let error = btf.field("outer", path).expect_err(path);
        assert!(matches!(error, Error::NoMember { .. }), "{path}: {error}");
    }
    assert!(matches!(btf.field("oute", "first"), Err(Error::NoStruct(_))));
    assert!(matches!(btf.field("outer2", "first"), Err(Error::NoStruct(_))));
}

#[test]
fn enumerators() {
    let btf = sample().btf();
    let value = |e, n| btf.enumerator(e, n).expect("sound");
    assert_eq!(value("reason", "DROP"), Some(7));
    assert_eq!(value("reason", "RESET"), Some(i64::from(u32::MAX)));
    assert_eq!(value("signed", "RESET"), Some(-1));
    assert_eq!(value("", "DROP"), Some(2 << 32 | 1), "of an anonymous 64-bit enum");
    assert_eq!(value("reason", "NONE"), None);
}

#[test]
fn walks_without_end_are_errors() {
    // A typedef of itself.
    let mut b = Builder::default();
    b.refer(kind::TYPEDEF, 1);
    b.structure("s", 4, &[("m", 1, 0, 0)]);
    assert!(matches!(b.btf().field("s", "m"), Err(Error::Malformed(_))));
    // A struct that contains itself anonymously.
    let mut b = Builder::default();
    b.structure("s", 4, &[("", 1, 0, 0)]);
    assert!(matches!(b.btf().field("s", "m"), Err(Error::Malformed(_))));
    // Thirty levels that each hold the next one four times: 4^30 visits if nothing stopped them.
    let mut b = Builder::default();
    for next in 2..32 {
        b.structure("s", 4, &[("", next, 0, 0), ("", next, 0, 0), ("", next, 0, 0), ("", next, 0, 0)]);
    }
    b.structure("leaf", 4, &[("x", 0, 0, 0)]);
    assert!(matches!(b.btf().field("s", "m"), Err(Error::Malformed(_))));
    // An array of itself, and one whose size does not fit.
    let mut b = Builder::default();
    b.array(1, 2);
    let int = b.int(4, 32);
    let large = b.array(int, u32::MAX);
    b.structure("s", 4, &[("own", 1, 0, 0), ("large", large, 0, 0), ("gone", 99, 0, 0), ("void", 0, 0, 0)]);
    let btf = b.btf();
    for path in ["own", "own[1]", "large", "gone", "void"] {
        assert!(matches!(btf.field("s", path), Err(Error::Malformed(_))), "{path}");
    }
}

#[test]
fn refuses_what_is_not_btf() {
    let whole = sample().bytes();
    assert!(matches!(Btf::parse(Vec::new()), Err(Error::Malformed(_))));
    assert!(matches!(
        Btf::parse(b"\x7fELF and more bytes to come, as there are in files".to_vec()),
        Err(Error::Malformed(_))
    ));
    let mut big_endian = whole.clone();
    big_endian.swap(0, 1);
    assert!(matches!(Btf::parse(big_endian), Err(Error::Malformed(_))));
    for len in 0..whole.len() {
        assert!(matches!(Btf::parse(whole[..len].to_vec()), Err(Error::Malformed(_))), "cut at {len}");
    }
    assert!(matches!(Btf::read("/nonexistent"), Err(Error::Io(_))));
}

/// Ask everything; only the absence of a panic and of an endless loop counts.
fn exercise(data: Vec<u8>, asked: &[(&str, &str)]) {
    if let Ok(btf) = Btf::parse(data) {
        for (structure, path) in asked {
            let _ = btf.field(structure, path);
        }
        let _ = btf.functions(&["tcp_check_req"]);
        let _ = (btf.functions(&["tcp_check_req", "f"]), btf.tracepoints(&["event"]));
        let _ = btf.enumerator("", "DROP");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(damage in prop::collection::vec((0usize..4096, any::<u8>()), 1..12)) {
        let mut data = sample().bytes();
        for (at, byte) in damage {
            let len = data.len();
            data[at % len] = byte;
        }
        exercise(data, &[("outer", "grid[1][2].v"), ("outer", "low"), ("outer", "none"), ("old", "bits"), ("twin", "two")]);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u32>(), 0..200)) {
        let size = noise.len() as u32 * 4;
        let head = [0x0001_eb9f, 24, 0, size, size / 2, size / 2];
        exercise(head.iter().chain(&noise).flat_map(|w| w.to_le_bytes()).collect(), &[("outer", "first")]);
    }
}

#[test]
fn the_running_kernels_fits_the_memory_budget() {
    let btf = Btf::read(VMLINUX).expect("the tests need a kernel with BTF");
    let index = btf.types.capacity() * size_of::<u32>() + btf.structs.capacity() * size_of::<(u32, u32)>();
    assert!(index < btf.data.len() / 4, "the index takes {index} bytes for {} of type information", btf.data.len());
    assert!(btf.types() > 10_000);
    // Kernels before 6.16 cannot map it: reading gives the same.
    let read = Btf::parse(std::fs::read(VMLINUX).expect("readable")).expect("sound");
    assert_eq!((read.types(), &read.data[..]), (btf.types(), &btf.data[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The running kernel's own, damaged around the structs that tcptrace asks for and in its first 64 KB.
    #[test]
    fn damage_to_the_running_kernels_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6000, any::<u8>()), 1..40)
    ) {
        static KERNEL: std::sync::OnceLock<(Vec<u8>, Vec<usize>)> = std::sync::OnceLock::new();
        let (whole, near) = KERNEL.get_or_init(|| {
            let btf = Btf::read(VMLINUX).expect("the tests need a kernel with BTF");
            let wanted = ["sock", "tcp_sock", "inet_connection_sock", "task_struct", "net"].map(|n| hash(n.as_bytes()));
            let ids = btf.structs.iter().filter(|(h, _)| wanted.contains(h)).map(|&(_, id)| btf.types[id as usize] as usize);
            let near: Vec<usize> = (0..11).map(|i| i * 6000).chain(ids).collect();
            (btf.data.to_vec(), near)
        });
        let mut data = whole.clone();
        for (place, offset, byte) in damage {
            // The header stays: the test of the small sample damages it.
            let at = (24 + place.get(near) + offset).min(data.len() - 1);
            data[at] = byte;
        }
        let asked: Vec<_> = tcptrace_common::offsets::FIELDS.iter().map(|s| (s.structure, s.path)).collect();
        exercise(data, &asked);
    }
}
