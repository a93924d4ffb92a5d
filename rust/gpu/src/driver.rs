//! The CUDA driver: devices, modules, launches on a stream that torch or another owner has made.

use crate::cache::Key;
use crate::compiler::compiler;
use crate::library::{Library, functions};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use striate_core::recipe::ENTRY;
use striate_core::{Launch, Recipe, Word};

type Handle = *mut c_void;

functions! {
    /// The functions of the driver, of CUDA 11 and later.
    Functions {
        /// Flags.
        init = "cuInit": unsafe extern "system" fn(c_uint) -> c_int;
        /// Version such as 13000.
        version = "cuDriverGetVersion": unsafe extern "system" fn(*mut c_int) -> c_int;
        /// Number of devices.
        count = "cuDeviceGetCount": unsafe extern "system" fn(*mut c_int) -> c_int;
        /// Device of a number.
        device = "cuDeviceGet": unsafe extern "system" fn(*mut c_int, c_int) -> c_int;
        /// Name of a device, at most so many bytes.
        name = "cuDeviceGetName": unsafe extern "system" fn(*mut c_char, c_int, c_int) -> c_int;
        /// Value, which, device.
        attribute = "cuDeviceGetAttribute": unsafe extern "system" fn(*mut c_int, c_int, c_int) -> c_int;
        /// The context that torch and the runtime use, kept alive.
        retain = "cuDevicePrimaryCtxRetain": unsafe extern "system" fn(*mut Handle, c_int) -> c_int;
        /// Makes a context current.
        push = "cuCtxPushCurrent_v2": unsafe extern "system" fn(Handle) -> c_int;
        /// Makes the one before it current again.
        pop = "cuCtxPopCurrent_v2": unsafe extern "system" fn(*mut Handle) -> c_int;
        /// New module, code.
        load = "cuModuleLoadData": unsafe extern "system" fn(*mut Handle, *const c_void) -> c_int;
        /// Function, module, name.
        function = "cuModuleGetFunction": unsafe extern "system" fn(*mut Handle, Handle, *const c_char) -> c_int;
        /// Function, which, value.
        allow = "cuFuncSetAttribute": unsafe extern "system" fn(Handle, c_int, c_int) -> c_int;
        /// Stream, whether a graph is being captured from it.
        capturing = "cuStreamIsCapturing": unsafe extern "system" fn(Handle, *mut c_int) -> c_int;
        /// Function, grid, block, shared memory, stream, arguments, extra.
        launch = "cuLaunchKernel": unsafe extern "system" fn(
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void,
        ) -> c_int;
        /// Text of an error.
        error = "cuGetErrorString": unsafe extern "system" fn(c_int, *mut *const c_char) -> c_int;
    }
}

const MAJOR: c_int = 75;
const MINOR: c_int = 76;
const MAX_DYNAMIC_SHARED: c_int = 8;
/// Dynamic shared memory that every function may have.
const SHARED_FOR_ALL: u32 = 48 * 1024;

#[cfg(not(windows))]
const NAMES: &[&str] = &["libcuda.so.1", "libcuda.so"];
#[cfg(windows)]
const NAMES: &[&str] = &["nvcuda.dll"];

/// The driver, ready for use, and what is known of its devices.
pub struct Driver {
    functions: Functions,
    devices: Mutex<HashMap<i32, Arc<Device>>>,
}

/// A device and the kernels that are loaded there.
struct Device {
    ordinal: i32,
    context: Handle,
    arch: u32,
    kernels: Mutex<HashMap<String, usize>>,
}

// SAFETY: handles of the driver may be used from any thread; the driver is thread-safe.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}
// SAFETY: function pointers and a lock.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// The driver, looked for once.
pub fn driver() -> Result<&'static Driver, String> {
    static FOUND: LazyLock<Result<Driver, String>> = LazyLock::new(Driver::find);
    FOUND.as_ref().map_err(|why| format!("CUDA kernels need NVIDIA's driver: {why}"))
}

/// Where tensors and workspace of a launch lie.
pub struct Addresses<'a> {
    /// Tensors that are read, 0 for a missing one.
    pub operands: &'a [usize],
    /// Tensors that are written.
    pub results: &'a [usize],
    /// As many bytes as the recipe asks for.
    pub workspace: usize,
}

impl Addresses<'_> {
    fn word(&self, word: &Word) -> Result<u64, String> {
        let of = |all: &[usize], index: usize| all.get(index).map(|&address| address as u64);
        let found = match *word {
            Word::Value(value) => Some(value as u64),
            Word::Operand(index) => of(self.operands, index),
            Word::Result(index) => of(self.results, index),
            Word::OperandAt(index, bytes) => of(self.operands, index).map(|address| address + bytes as u64),
            Word::ResultAt(index, bytes) => of(self.results, index).map(|address| address + bytes as u64),
            Word::Workspace(offset) => Some((self.workspace + offset) as u64),
        };
        found.ok_or_else(|| format!("a kernel asks for {word:?}, which the call has not"))
    }
}

impl Driver {
    fn find() -> Result<Driver, String> {
        let functions = Functions::load(Library::open(NAMES)?)?;
        let driver = Driver { functions, devices: Mutex::default() };
        // SAFETY: no argument but reserved flags.
        driver.check(unsafe { (driver.functions.init)(0) }, "cannot start")?;
        Ok(driver)
    }

    /// Where the library lies, as far as known.
    pub fn path(&self) -> String {
        self.functions.library.path.display().to_string()
    }

    /// Version such as 13000.
    pub fn version(&self) -> i32 {
        let mut version = 0;
        // SAFETY: a place for a number.
        unsafe { (self.functions.version)(&mut version) };
        version
    }

    /// Name and architecture of every device.
    pub fn devices(&self) -> Result<Vec<(String, u32)>, String> {
        let mut count = 0;
        // SAFETY: a place for a number.
        self.check(unsafe { (self.functions.count)(&mut count) }, "cannot count devices")?;
        (0..count).map(|ordinal| Ok((self.name(ordinal)?, self.device(ordinal)?.arch))).collect()
    }

    fn name(&self, ordinal: i32) -> Result<String, String> {
        let (mut device, mut name) = (0, [0u8; 256]);
        // SAFETY: a place for a number and a buffer of the stated length, which the driver terminates.
        unsafe {
            self.check((self.functions.device)(&mut device, ordinal), "no such device")?;
            self.check((self.functions.name)(name.as_mut_ptr().cast(), 255, device), "no name")?;
        }
        Ok(CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned())
    }

    fn check(&self, code: c_int, about: impl std::fmt::Display) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: a place for the address of a constant string.
        unsafe { (self.functions.error)(code, &mut text) };
        let words = if text.is_null() {
            format!("error {code}")
        } else {
            // SAFETY: a constant, terminated string.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(format!("CUDA driver: {words}: {about}"))
    }

    fn device(&self, ordinal: i32) -> Result<Arc<Device>, String> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = devices.get(&ordinal) {
            return Ok(known.clone());
        }
        let (mut device, mut context, mut major, mut minor) = (0, null_mut(), 0, 0);
        let f = &self.functions;
        // SAFETY: places for numbers and a handle.
        unsafe {
            self.check((f.device)(&mut device, ordinal), format_args!("device {ordinal}"))?;
            self.check((f.attribute)(&mut major, MAJOR, device), "no architecture")?;
            self.check((f.attribute)(&mut minor, MINOR, device), "no architecture")?;
            self.check((f.retain)(&mut context, device), "no context")?;
        }
        let arch = (10 * major + minor).unsigned_abs();
        let made = Arc::new(Device { ordinal, context, arch, kernels: Mutex::default() });
        devices.insert(ordinal, made.clone());
        Ok(made)
    }

    /// Puts the launches of a recipe on a stream of a device, compiling what has not been compiled. Nothing waits.
    ///
    /// # Safety
    /// The addresses are device memory of the sizes that the recipe was made for, and stay so until the stream has
    /// passed; the stream belongs to the device.
    pub unsafe fn run(&self, recipe: &Recipe, at: &Addresses<'_>, ordinal: i32, stream: usize) -> Result<(), String> {
        let device = self.device(ordinal)?;
        let _current = self.enter(&device)?;
        for launch in &recipe.launches {
            let mut words: Vec<u64> = launch.words.iter().map(|word| at.word(word)).collect::<Result<_, _>>()?;
            if launch.grid == 0 {
                continue;
            }
            let kernel = self.kernel(&device, launch, stream)?;
            let mut arguments = [words.as_mut_ptr().cast::<c_void>()];
            // SAFETY: the kernel has one argument of so many words, as its text asserts at compile time; memory and
            // stream are the caller's promise.
            let code = unsafe {
                (self.functions.launch)(
                    kernel as Handle,
                    launch.grid,
                    1,
                    1,
                    launch.block,
                    1,
                    1,
                    launch.shared,
                    stream as Handle,
                    arguments.as_mut_ptr(),
                    null_mut(),
                )
            };
            self.check(code, format_args!("cannot launch {} blocks of {}", launch.grid, launch.block))?;
        }
        Ok(())
    }

    /// Compiles and loads the kernels of a recipe, so that a later run finds them, also under graph capture.
    pub fn prepare(&self, recipe: &Recipe, ordinal: i32) -> Result<(), String> {
        let device = self.device(ordinal)?;
        let _current = self.enter(&device)?;
        recipe.launches.iter().try_for_each(|launch| self.kernel(&device, launch, 0).map(|_| ()))
    }

    fn enter(&self, device: &Device) -> Result<Current<'_>, String> {
        // SAFETY: a context that was retained for ever.
        self.check(unsafe { (self.functions.push)(device.context) }, format_args!("device {}", device.ordinal))?;
        Ok(Current(self))
    }

    fn kernel(&self, device: &Device, launch: &Launch, stream: usize) -> Result<usize, String> {
        let mut kernels = device.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = kernels.get(&launch.source) {
            return Ok(known);
        }
        let mut capturing = 0;
        // SAFETY: the caller's stream, and a place for a number.
        unsafe { (self.functions.capturing)(stream as Handle, &mut capturing) };
        if capturing != 0 && stream != 0 {
            return Err(
                "a kernel is not compiled yet and a CUDA graph is being captured; run the operation once before \
                        the capture"
                    .into(),
            );
        }
        let code = machine_code(&launch.source, device.arch)?;
        let (mut module, mut function) = (null_mut(), null_mut());
        // SAFETY: code from the compiler (terminated if it is text), places for handles, a terminated name.
        unsafe {
            let f = &self.functions;
            self.check((f.load)(&mut module, code.as_ptr().cast()), "cannot load a kernel")?;
            let name = std::ffi::CString::new(ENTRY).unwrap_or_default();
            self.check((f.function)(&mut function, module, name.as_ptr()), "cannot find a kernel")?;
            if launch.shared > SHARED_FOR_ALL {
                let bytes = launch.shared as c_int;
                self.check((f.allow)(function, MAX_DYNAMIC_SHARED, bytes), "too little shared memory")?;
            }
        }
        kernels.insert(launch.source.clone(), function as usize);
        Ok(function as usize)
    }
}

/// A device's context, current until dropped.
struct Current<'a>(&'a Driver);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut left = null_mut();
        // SAFETY: pops what `enter` pushed.
        unsafe { (self.0.functions.pop)(&mut left) };
    }
}

/// The code of a translation unit for an architecture, from disk if it is there.
pub fn machine_code(source: &str, arch: u32) -> Result<Vec<u8>, String> {
    let compiler = compiler()?;
    let options = compiler.options(arch)?;
    let key = Key::new(compiler.version, &options, source);
    if let Some(code) = key.read() {
        return Ok(code);
    }
    if let Some(folder) = std::env::var_os("STRIATE_DUMP_CUDA") {
        dump(&folder, source);
    }
    let compiled = compiler.compile(source, &options)?;
    if let Err(why) = key.write(&compiled.code) {
        complain(&format!("a compiled kernel cannot be kept on disk: {why}"));
    }
    Ok(compiled.code)
}

/// Writes the text that is about to be compiled, numbered, into a folder.
fn dump(folder: &std::ffi::OsStr, source: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{:03}.cu", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = std::path::Path::new(folder).join(name);
    if let Err(why) = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, source)) {
        complain(&format!("STRIATE_DUMP_CUDA: {why}"));
    }
}

/// Says something on the standard error stream, once for each text.
fn complain(what: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.iter().any(|known| known == what) {
        eprintln!("striate: {what}");
        said.push(what.to_owned());
    }
}
