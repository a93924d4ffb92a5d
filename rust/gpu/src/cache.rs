//! Compiled kernels on disk. A file is found by a hash of what it was compiled from and believed only if it repeats
//! all of that; it is written beside its place and then renamed, so that no reader sees half of it.

use crate::headers::HEADERS;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const MAGIC: &[u8] = b"striate kernel 1\n";

/// A 128-bit hash (Fowler, Noll, Vo), the same on every machine and in every release.
fn hash(parts: &[&[u8]]) -> u128 {
    let mut state = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58du128;
    for part in parts {
        // A part's length keeps "ab", "c" and "a", "bc" apart.
        for &byte in part.iter().chain(&(part.len() as u64).to_le_bytes()) {
            state = (state ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    state
}

/// Everything that the code of a kernel depends on.
pub struct Key {
    text: String,
}

impl Key {
    /// Of a source compiled by a version of NVRTC with these options.
    pub fn new(version: (i32, i32), options: &[String], source: &str) -> Key {
        let headers: Vec<&[u8]> = HEADERS.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]).collect();
        let text = format!(
            "striate {}\nnvrtc {}.{}\n{}\nheaders {:032x}\n{source}",
            env!("CARGO_PKG_VERSION"),
            version.0,
            version.1,
            options.join(" "),
            hash(&headers),
        );
        Key { text }
    }

    fn file(&self) -> Option<PathBuf> {
        Some(folder()?.join(format!("{:032x}.kernel", hash(&[self.text.as_bytes()]))))
    }

    /// The code on disk, if it is there and of this very key.
    pub fn read(&self) -> Option<Vec<u8>> {
        let bytes = fs::read(self.file()?).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (known, code) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        (known == self.text.as_bytes()).then(|| code.to_vec())
    }

    /// Keeps the code; a disk that does not take it is no reason to fail.
    pub fn write(&self, code: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(file) = self.file() else { return Ok(()) };
        let Some(folder) = file.parent() else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let beside = folder.join(format!(".{}-{number}.part", std::process::id()));
        let length = (self.text.len() as u64).to_le_bytes();
        fs::write(&beside, [MAGIC, &length, self.text.as_bytes(), code].concat())?;
        fs::rename(&beside, &file).inspect_err(|_| drop(fs::remove_file(&beside)))
    }
}

/// The folder of the cache: STRIATE_CACHE_DIR, or the one that the platform has for such files. None if the cache is
/// switched off (STRIATE_DISABLE_CACHE) or there is no such folder.
pub fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if variable("STRIATE_DISABLE_CACHE").is_some_and(|value| value.as_os_str() != "0") {
        return None;
    }
    if let Some(chosen) = variable("STRIATE_CACHE_DIR") {
        return Some(chosen);
    }
    let home = || variable("HOME");
    let platform = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    Some(platform?.join("striate"))
}

/// Names and sizes of the kept files.
pub fn entries() -> Vec<(String, u64)> {
    let files = folder().and_then(|folder| fs::read_dir(folder).ok());
    let mut found: Vec<(String, u64)> = files
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "kernel"))
        .filter_map(|entry| Some((entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?.len())))
        .collect();
    found.sort();
    found
}

/// Removes the kept files and says how many there were.
pub fn clear() -> io::Result<usize> {
    let Some(folder) = folder() else { return Ok(0) };
    let entries = entries();
    for (name, _) in &entries {
        fs::remove_file(folder.join(name))?;
    }
    Ok(entries.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(hash(&[b"ab"]), hash(&[b"ab"]));
    }

    #[test]
    fn a_key_names_all_that_matters() {
        let options = ["--gpu-architecture=sm_90".to_owned()];
        let key = Key::new((13, 0), &options, "text");
        for word in ["sm_90", "nvrtc 13.0", "\ntext", env!("CARGO_PKG_VERSION")] {
            assert!(key.text.contains(word), "{word}");
        }
        assert_ne!(key.text, Key::new((13, 1), &options, "text").text);
    }
}
