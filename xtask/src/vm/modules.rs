//! Kernel modules for a guest: names in, files in the order in which they can be loaded out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// A module, ready to be loaded.
pub struct Module {
    /// `veth`
    pub name: String,
    /// The ELF file, decompressed.
    pub content: Vec<u8>,
}

/// Those of `wanted` that are modules below `dir`, each after what it depends on. What is not there is built in, or missing.
///
/// # Errors
/// A file cannot be read, or one depends on what is not there.
pub fn closure(dir: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(&dir.join("kernel"), &mut files)?;
    let mut loaded = Vec::new();
    for name in wanted.iter().filter(|name| files.contains_key(**name)) {
        add(name, &files, &mut loaded)?;
    }
    Ok(loaded)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, loaded: &mut Vec<Module>) -> Result<()> {
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let file = files.get(name).with_context(|| format!("no module {name}"))?;
    let content = read(file)?;
    for dependency in depends(&content) {
        add(&dependency, files, loaded)?;
    }
    loaded.push(Module { name: name.to_owned(), content });
    Ok(())
}

/// Name → file: `nf-tables.ko.xz` is called `nf_tables`.
fn index(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some((name, _)) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once(".ko")) {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(program).arg("-dc").arg(file).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} -dc {}: {}", file.display(), output.status);
    Ok(output.stdout)
}

/// What a module says it depends on: `depends=a,b` among the NUL-terminated strings of its section .modinfo.
fn depends(module: &[u8]) -> Vec<String> {
    const TAG: &[u8] = b"\0depends=";
    let Some(at) = module.windows(TAG.len()).position(|window| window == TAG) else { return Vec::new() };
    let list = module[at + TAG.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_file() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=udp_tunnel,ip6-udp,libcrc32c\0retpoline=Y\0"),
            ["udp_tunnel", "ip6_udp", "libcrc32c"]
        );
        assert_eq!(depends(b"\0depends=\0name=veth\0"), [""; 0]);
        assert_eq!(depends(b"nothing"), [""; 0]);
    }
}
