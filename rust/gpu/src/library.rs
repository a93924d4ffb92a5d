//! Shared libraries that are found at run time and never closed: CUDA's driver and its run-time compiler.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Folders that the host program knows to hold NVIDIA's libraries, asked before the system's own search.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Names folders to search before the system does; those of the environment need not be told.
pub fn search_in(folders: Vec<PathBuf>) {
    *FOLDERS.lock().unwrap_or_else(PoisonError::into_inner) = folders;
}

/// The folders to search, most trusted first.
fn folders() -> Vec<PathBuf> {
    let mut all = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (variable, insides) in [
        ("CONDA_PREFIX", &["lib", "Library/bin"][..]),
        ("CUDA_PATH", &["lib64", "lib", "bin/x64", "bin"]),
        ("CUDA_HOME", &["lib64", "lib", "bin/x64", "bin"]),
    ] {
        if let Some(root) = std::env::var_os(variable) {
            all.extend(insides.iter().map(|inside| Path::new(&root).join(inside)));
        }
    }
    all
}

/// A library, and where it was found if that is known.
pub struct Library {
    handle: libloading::Library,
    /// Its file, or its bare name where the system found it.
    pub path: PathBuf,
}

impl Library {
    /// The first that opens of: one that is loaded already, one in a known folder, one that the system finds. The
    /// names come in order of preference.
    pub fn open(names: &[&str]) -> Result<Library, String> {
        if let Some(loaded) = names.iter().find_map(|name| already_loaded(name)) {
            return Ok(loaded);
        }
        for folder in folders() {
            for path in names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()) {
                load_beside(&path);
                // SAFETY: NVIDIA's libraries, whose initialisers any CUDA program runs.
                if let Ok(handle) = unsafe { libloading::Library::new(&path) } {
                    return Ok(Library { handle, path });
                }
            }
        }
        let mut complaint = String::new();
        for name in names {
            // SAFETY: as above.
            match unsafe { libloading::Library::new(name) } {
                Ok(handle) => return Ok(Library { handle, path: PathBuf::from(name) }),
                Err(error) => complaint = error.to_string(),
            }
        }
        Err(format!("none of {} is loaded, in a known folder or found by the system ({complaint})", names.join(", ")))
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` must be the type of a pointer to the function of that name.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: the caller's promise is this function's contract; the library is never closed.
        let found = unsafe { self.handle.get::<F>(name.as_bytes()) };
        found.map(|symbol| *symbol).map_err(|_| format!("{} lacks {name}", self.path.display()))
    }
}

/// The compiler of CUDA 13.0 does not find the file of built-in functions that lies beside it; once that is loaded by
/// its path, it does. The handle is kept for ever.
fn load_beside(path: &Path) {
    let Some(entries) = path.parent().and_then(|folder| folder.read_dir().ok()) else { return };
    let is_compiler = path.file_name().is_some_and(|name| name.to_string_lossy().contains("nvrtc"));
    for entry in entries.flatten().filter(|_| is_compiler) {
        if entry.file_name().to_string_lossy().contains("nvrtc-builtins") {
            // SAFETY: as in `open`.
            if let Ok(handle) = unsafe { libloading::Library::new(entry.path()) } {
                std::mem::forget(handle);
            }
        }
    }
}

#[cfg(unix)]
fn already_loaded(name: &str) -> Option<Library> {
    use libloading::os::unix;
    #[cfg(target_os = "macos")]
    const NO_LOAD: i32 = 0x10;
    #[cfg(not(target_os = "macos"))]
    const NO_LOAD: i32 = 0x4;
    // SAFETY: a library that is loaded already runs no initialiser again.
    let handle = unsafe { unix::Library::open(Some(name), unix::RTLD_NOW | NO_LOAD) }.ok()?;
    Some(Library { handle: handle.into(), path: PathBuf::from(name) })
}

#[cfg(windows)]
fn already_loaded(name: &str) -> Option<Library> {
    let handle = libloading::os::windows::Library::open_already_loaded(name).ok()?;
    Some(Library { handle: handle.into(), path: PathBuf::from(name) })
}

/// Declares a struct of the functions of a library together with the loader that fills it.
macro_rules! functions {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident = $symbol:literal: $signature:ty;)* }) => {
        $(#[$about])*
        pub struct $name {
            $($(#[$doc])* pub $field: $signature,)*
            /// The library they are from.
            pub(crate) library: $crate::library::Library,
        }

        impl $name {
            fn load(library: $crate::library::Library) -> Result<$name, String> {
                // SAFETY: the types are those of NVIDIA's headers, which a symbol of this name keeps for ever.
                unsafe { Ok($name { $($field: library.function::<$signature>($symbol)?,)* library }) }
            }
        }
    };
}
pub(crate) use functions;
