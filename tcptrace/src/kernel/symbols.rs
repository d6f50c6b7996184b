//! Addresses of kernel functions: /proc/kallsyms in, numbers out.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// Where the kernel lists its symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Addresses of `names` in the order asked for; `None` where the kernel lacks a symbol or hides its address
/// (`kernel.kptr_restrict`, a missing `CAP_SYSLOG`). The file has 100,000 lines or more and takes some 30 ms.
///
/// # Errors
/// The file cannot be read.
pub fn addresses<const N: usize>(path: impl AsRef<Path>, names: [&str; N]) -> io::Result<[Option<u64>; N]> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let (mut found, mut line) = ([None; N], Vec::new());
    // Modules come last, and a function of the same name in one is not meant.
    while found.iter().any(Option::is_none) {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some((address, name)) = parse(&line) else { continue };
        for (found, _) in found.iter_mut().zip(names).filter(|(_, n)| n.as_bytes() == name) {
            *found = found.or(address);
        }
    }
    Ok(found)
}

/// `ffffffff81000000 t name`, with a tab and `[module]` behind the name of a module's. An address of 0 is a hidden one.
fn parse(line: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let line = line.trim_ascii_end();
    let mut words = line.splitn(3, |&b| b == b' ');
    let (address, _, name) = (words.next()?, words.next()?, words.next()?);
    let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
    Some(((address != 0).then_some(address), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> [Option<u64>; 2] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kallsyms");
        std::fs::write(&path, text).expect("a file");
        addresses(&path, ["reqsk_timer_handler", "tw_timer_handler"]).expect("readable")
    }

    #[test]
    fn the_kernels_own_symbol_is_meant() {
        let text = "0000000000000000 A fixed_percpu_data\nffffffff820085b0 t reqsk_timer_handler\n\
                    ffffffff820085b1 t reqsk_timer_handler.cold\nffffffffc0000000 t tw_timer_handler\t[mod]\n";
        assert_eq!(read(text), [Some(0xffff_ffff_8200_85b0), None]);
    }

    #[test]
    fn hidden_addresses_are_absent() {
        assert_eq!(read("0000000000000000 t reqsk_timer_handler\n0000000000000000 t tw_timer_handler\n"), [None; 2]);
    }

    #[test]
    fn nonsense_is_skipped() {
        assert_eq!(read("\n \nxyz t tw_timer_handler\n12 t\n\u{fffd}ff t tw_timer_handler"), [None; 2]);
    }
}
