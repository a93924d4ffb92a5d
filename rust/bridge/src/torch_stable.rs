//! libtorch's stable C shim, found at run time in the library that torch has already loaded. Only functions that
//! torch has had since 2.10 are required; nothing of torch is needed to build or to load this library.

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::OnceLock;

/// A tensor, string or library of torch's.
pub type Handle = *mut c_void;
/// What arguments and results of a boxed kernel travel in.
pub type Boxed = u64;
/// A kernel as the dispatcher calls it: stack, number of inputs, number of outputs.
pub type Kernel = extern "C-unwind" fn(*mut Boxed, u64, u64);
/// The body of a parallel loop: begin, end, context.
pub type LoopBody = extern "C" fn(i64, i64, *mut c_void);

/// The libtorch version these declarations were written for, as `torch_library_impl` wants to know it.
pub const WRITTEN_FOR: u64 = 0x020a_0000_0000_0000;

/// Declares the struct of required functions together with the loader that fills it.
macro_rules! shim {
    ($($(#[$doc:meta])* $field:ident = $symbol:literal : $signature:ty;)*) => {
        /// The required functions, and two that newer versions have. All but `check` answer 0 for success.
        pub struct Shim {
            $($(#[$doc])* pub $field: $signature,)*
            /// Frees the box an optional argument comes in; missing only where torch offers no way to free it.
            pub delete_boxed: Option<unsafe extern "C" fn(*mut Boxed) -> i32>,
            /// C++'s own `operator delete`, which frees such boxes before torch 2.13.
            pub operator_delete: Option<unsafe extern "C" fn(*mut c_void)>,
            /// Text of the calling thread's last exception, since torch 2.13.
            pub last_error: Option<unsafe extern "C" fn() -> *const c_char>,
            /// Codes of f32, f64, bf16, f16 in this order, and of uint8.
            pub dtypes: [i32; 5],
            /// Code of host memory.
            pub host: i32,
            /// Code of memory on a CUDA device.
            pub cuda: i32,
            /// The folder of torch's libraries.
            pub folder: std::path::PathBuf,
        }

        impl Shim {
            fn load(library: &Library) -> Result<Shim, String> {
                let missing: Vec<&str> = [$($symbol),*].into_iter().filter(|s| library.find(s).is_null()).collect();
                if !missing.is_empty() {
                    return Err(format!("this libtorch lacks {}; striate needs torch >= 2.10", missing.join(", ")));
                }
                // SAFETY: every address was found under its name just now, and its type is the one that torch's
                // headers give that name (torch/csrc/stable/c/shim.h, torch/csrc/inductor/aoti_torch/c/shim.h);
                // the C interface promises not to change it.
                unsafe {
                    Ok(Shim {
                        $($field: std::mem::transmute::<*mut c_void, $signature>(library.find($symbol)),)*
                        delete_boxed: std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn(*mut Boxed) -> i32>,
                        >(library.find("torch_delete_stable_ivalue")),
                        operator_delete: std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn(*mut c_void)>,
                        >(library.find("_ZdlPv")),
                        last_error: std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn() -> *const c_char>,
                        >(library.find("torch_exception_get_what_without_backtrace")),
                        dtypes: [0; 5],
                        host: 0,
                        cuda: 0,
                        folder: std::path::PathBuf::new(),
                    })
                }
            }
        }
    };
}

shim! {
    /// Namespace, dispatch key, file, line, new library.
    library_init_impl = "aoti_torch_library_init_impl":
        unsafe extern "C" fn(*const c_char, *const c_char, *const c_char, u32, *mut Handle) -> i32;
    /// Library, operator, kernel, version written for.
    library_impl = "torch_library_impl": unsafe extern "C" fn(Handle, *const c_char, Kernel, u64) -> i32;
    /// Throws a C++ exception with the message unless the condition holds: condition, function, file, line, message.
    check = "aoti_torch_check":
        unsafe extern "C-unwind" fn(bool, *const c_char, *const c_char, u32, *const c_char);
    /// Number of dimensions.
    dim = "aoti_torch_get_dim": unsafe extern "C" fn(Handle, *mut i64) -> i32;
    /// Sizes, borrowed.
    sizes = "aoti_torch_get_sizes": unsafe extern "C" fn(Handle, *mut *mut i64) -> i32;
    /// Strides in elements, borrowed.
    strides = "aoti_torch_get_strides": unsafe extern "C" fn(Handle, *mut *mut i64) -> i32;
    /// Code of the element type.
    dtype = "aoti_torch_get_dtype": unsafe extern "C" fn(Handle, *mut i32) -> i32;
    /// Code of the kind of device.
    device = "aoti_torch_get_device_type": unsafe extern "C" fn(Handle, *mut i32) -> i32;
    /// Number of the device.
    device_index = "aoti_torch_get_device_index": unsafe extern "C" fn(Handle, *mut i32) -> i32;
    /// Address of the first element, for reading.
    data = "torch_get_const_data_ptr": unsafe extern "C" fn(Handle, *mut *const c_void) -> i32;
    /// Address of the first element, for writing.
    data_mut = "torch_get_mutable_data_ptr": unsafe extern "C" fn(Handle, *mut *mut c_void) -> i32;
    /// Dimensions, sizes, strides, element type, device, device index, new tensor.
    empty_strided = "aoti_torch_empty_strided":
        unsafe extern "C" fn(i64, *const i64, *const i64, i32, i32, i32, *mut Handle) -> i32;
    /// Destination, source, non-blocking.
    copy = "aoti_torch_copy_": unsafe extern "C" fn(Handle, Handle, i32) -> i32;
    /// Gives a tensor back.
    delete_tensor = "aoti_torch_delete_tensor_object": unsafe extern "C" fn(Handle) -> i32;
    /// Bytes of a string.
    string_length = "torch_string_length": unsafe extern "C" fn(Handle, *mut usize) -> i32;
    /// First byte of a string, borrowed.
    string_start = "torch_string_c_str": unsafe extern "C" fn(Handle, *mut *const c_char) -> i32;
    /// Gives a string back.
    delete_string = "torch_delete_string": unsafe extern "C" fn(Handle) -> i32;
    /// Runs a loop on torch's threads: begin, end, grain, body, context.
    parallel_for = "torch_parallel_for": unsafe extern "C" fn(i64, i64, i64, LoopBody, *mut c_void) -> i32;
    /// Number of threads that such a loop uses.
    num_threads = "torch_get_num_threads": unsafe extern "C" fn(*mut u32) -> i32;
    /// Whether gradients are recorded.
    grad_enabled = "aoti_torch_grad_mode_is_enabled": unsafe extern "C" fn() -> bool;
    /// Switches the recording of gradients.
    set_grad_enabled = "aoti_torch_grad_mode_set_enabled": unsafe extern "C" fn(bool);
    /// Code of float32.
    float32 = "aoti_torch_dtype_float32": unsafe extern "C" fn() -> i32;
    /// Code of float64.
    float64 = "aoti_torch_dtype_float64": unsafe extern "C" fn() -> i32;
    /// Code of bfloat16.
    bfloat16 = "aoti_torch_dtype_bfloat16": unsafe extern "C" fn() -> i32;
    /// Code of float16.
    float16 = "aoti_torch_dtype_float16": unsafe extern "C" fn() -> i32;
    /// Code of uint8.
    uint8 = "aoti_torch_dtype_uint8": unsafe extern "C" fn() -> i32;
    /// Code of host memory.
    device_cpu = "aoti_torch_device_type_cpu": unsafe extern "C" fn() -> i32;
    /// Code of memory on a CUDA device.
    device_cuda = "aoti_torch_device_type_cuda": unsafe extern "C" fn() -> i32;
}

static SHIM: OnceLock<Shim> = OnceLock::new();

/// The shim; `None` before [`connect`] has succeeded.
pub fn loaded() -> Option<&'static Shim> {
    SHIM.get()
}

/// The shim inside a kernel that torch called, which it can do only after [`connect`].
pub fn shim() -> &'static Shim {
    SHIM.get().expect("torch called a kernel before striate was registered")
}

/// Finds the shim in the libtorch_cpu at `path`, which must be loaded already.
pub fn connect(path: &Path) -> Result<&'static Shim, String> {
    if let Some(shim) = SHIM.get() {
        return Ok(shim);
    }
    let mut shim = Shim::load(&Library::already_loaded(path)?)?;
    // SAFETY: functions without arguments or conditions.
    unsafe {
        shim.dtypes = [(shim.float32)(), (shim.float64)(), (shim.bfloat16)(), (shim.float16)(), (shim.uint8)()];
        shim.host = (shim.device_cpu)();
        shim.cuda = (shim.device_cuda)();
    }
    shim.folder = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok(SHIM.get_or_init(|| shim))
}

impl Shim {
    /// An error for a failed call, with torch's own words where it offers them.
    pub fn error(&self, what: impl std::fmt::Display) -> String {
        // SAFETY: the function takes nothing; its answer is null or a string valid until this thread's next error.
        let text = self.last_error.map(|get| unsafe { get() }).filter(|text| !text.is_null()).map(|text| {
            // SAFETY: as above, and it is copied at once.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
        });
        match text.filter(|text| !text.is_empty()) {
            Some(text) => format!("{what}: {text}"),
            None => format!("{what}: torch reported an error"),
        }
    }

    /// The stream on which torch puts work for a CUDA device now.
    pub fn cuda_stream(&self, index: i32) -> Result<usize, String> {
        type Get = unsafe extern "C" fn(i32, *mut *mut c_void) -> i32;
        static FOUND: OnceLock<Result<Get, String>> = OnceLock::new();
        let get = FOUND.get_or_init(|| {
            let name = if cfg!(windows) { "torch_cuda.dll" } else { "libtorch_cuda.so" };
            let found = Library::already_loaded(&self.folder.join(name))?.find("aoti_torch_get_current_cuda_stream");
            // SAFETY: found under its name, with the type of torch/csrc/inductor/aoti_torch/c/shim.h.
            let get = unsafe { std::mem::transmute::<*mut c_void, Option<Get>>(found) };
            get.ok_or_else(|| "this torch does not tell its CUDA stream".to_owned())
        });
        let mut stream = std::ptr::null_mut();
        // SAFETY: a place for the handle.
        let code = unsafe { get.clone()?(index, &mut stream) };
        if code == 0 { Ok(stream as usize) } else { Err(self.error("no CUDA stream")) }
    }

    /// Number of threads that torch gives to a parallel loop.
    pub fn threads(&self) -> usize {
        let mut threads = 1;
        // SAFETY: writes one number through a valid pointer.
        let code = unsafe { (self.num_threads)(&mut threads) };
        if code == 0 { (threads as usize).max(1) } else { 1 }
    }
}

/// A shared library that somebody else keeps loaded; it is never closed.
struct Library(*mut c_void);

#[cfg(unix)]
impl Library {
    fn already_loaded(path: &Path) -> Result<Library, String> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: a terminated string; RTLD_NOLOAD runs no initialisers.
        let found = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        if found.is_null() {
            return Err(format!("{} is not loaded in this process; import torch first", path.display()));
        }
        Ok(Library(found))
    }

    fn find(&self, symbol: &str) -> *mut c_void {
        let name = std::ffi::CString::new(symbol).expect("symbols hold no zero byte");
        // SAFETY: an open library and a terminated string.
        unsafe { libc::dlsym(self.0, name.as_ptr()) }
    }
}

#[cfg(windows)]
impl Library {
    fn already_loaded(path: &Path) -> Result<Library, String> {
        use std::os::windows::ffi::OsStrExt;
        unsafe extern "system" {
            fn GetModuleHandleW(name: *const u16) -> *mut c_void;
        }
        let name: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        // SAFETY: a terminated wide string.
        let found = unsafe { GetModuleHandleW(name.as_ptr()) };
        if found.is_null() {
            return Err(format!("{} is not loaded in this process; import torch first", path.display()));
        }
        Ok(Library(found))
    }

    fn find(&self, symbol: &str) -> *mut c_void {
        unsafe extern "system" {
            fn GetProcAddress(module: *mut c_void, name: *const c_char) -> *mut c_void;
        }
        let name = std::ffi::CString::new(symbol).expect("symbols hold no zero byte");
        // SAFETY: a loaded module and a terminated string.
        unsafe { GetProcAddress(self.0, name.as_ptr()) }
    }
}
