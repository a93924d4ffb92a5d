//! NVRTC: from the text of a kernel to machine code, on any machine that has the library.

use crate::headers::HEADERS;
use crate::library::{Library, functions};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::LazyLock;

type Handle = *mut c_void;
type Size = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
type Bytes = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;

functions! {
    /// The functions of NVRTC, of CUDA 11.2 and later.
    Functions {
        /// Major, minor.
        version = "nvrtcVersion": unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
        /// Text of an error.
        error = "nvrtcGetErrorString": unsafe extern "C" fn(c_int) -> *const c_char;
        /// New program, source, name, number of headers, texts, names.
        create = "nvrtcCreateProgram": unsafe extern "C" fn(
            *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char,
        ) -> c_int;
        /// Ends a program.
        destroy = "nvrtcDestroyProgram": unsafe extern "C" fn(*mut Handle) -> c_int;
        /// Program, number of options, options.
        compile = "nvrtcCompileProgram": unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
        /// Length of the log.
        log_size = "nvrtcGetProgramLogSize": Size;
        /// The log.
        log = "nvrtcGetProgramLog": Bytes;
        /// Length of the machine code.
        cubin_size = "nvrtcGetCUBINSize": Size;
        /// The machine code.
        cubin = "nvrtcGetCUBIN": Bytes;
        /// Length of the text for later devices.
        ptx_size = "nvrtcGetPTXSize": Size;
        /// The text for later devices.
        ptx = "nvrtcGetPTX": Bytes;
        /// How many architectures are known.
        arch_count = "nvrtcGetNumSupportedArchs": unsafe extern "C" fn(*mut c_int) -> c_int;
        /// They, ascending.
        archs = "nvrtcGetSupportedArchs": unsafe extern "C" fn(*mut c_int) -> c_int;
    }
}

/// The compiler of this machine.
pub struct Compiler {
    functions: Functions,
    /// Major and minor version.
    pub version: (i32, i32),
    /// Architectures it compiles for, such as 90, ascending.
    pub archs: Vec<u32>,
}

/// What became of a text.
pub struct Compiled {
    /// Machine code, or text that the driver compiles.
    pub code: Vec<u8>,
    /// What the compiler said, registers and spills among it.
    pub log: String,
}

#[cfg(not(windows))]
const NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
#[cfg(windows)]
const NAMES: &[&str] = &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];

/// The compiler, looked for once.
pub fn compiler() -> Result<&'static Compiler, String> {
    static FOUND: LazyLock<Result<Compiler, String>> = LazyLock::new(Compiler::find);
    FOUND.as_ref().map_err(|why| format!("CUDA kernels need NVRTC: {why}"))
}

impl Compiler {
    fn find() -> Result<Compiler, String> {
        let functions = Functions::load(Library::open(NAMES)?)?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: places for numbers; the second call writes as many numbers as the first one said.
        let archs = unsafe {
            if (functions.version)(&mut major, &mut minor) | (functions.arch_count)(&mut count) != 0 {
                return Err(format!("{} does not answer", functions.library.path.display()));
            }
            let mut archs = vec![0; count as usize];
            (functions.archs)(archs.as_mut_ptr());
            archs
        };
        let archs = archs.into_iter().map(|arch: c_int| arch.unsigned_abs()).collect();
        Ok(Compiler { functions, version: (major, minor), archs })
    }

    /// Where the library lies, as far as known.
    pub fn path(&self) -> String {
        self.functions.library.path.display().to_string()
    }

    /// The options for a device: machine code where the compiler knows it, else text for the nearest it knows.
    pub fn options(&self, arch: u32) -> Result<Vec<String>, String> {
        let target = if self.archs.contains(&arch) {
            format!("sm_{arch}")
        } else {
            let below = self.archs.iter().rev().find(|&&known| known < arch);
            let nearest =
                below.ok_or_else(|| format!("NVRTC {:?} knows no architecture below sm_{arch}", self.version))?;
            format!("compute_{nearest}")
        };
        Ok(vec![format!("--gpu-architecture={target}"), "--std=c++17".into(), "--ptxas-options=-v".into()])
    }

    /// Compiles a translation unit.
    pub fn compile(&self, source: &str, options: &[String]) -> Result<Compiled, String> {
        let text = |words: &str| CString::new(words).map_err(|_| "a kernel's text holds a zero byte".to_owned());
        let source = text(source)?;
        let headers: Vec<CString> = HEADERS.iter().map(|(_, body)| text(body)).collect::<Result<_, _>>()?;
        let names: Vec<CString> = HEADERS.iter().map(|(name, _)| text(name)).collect::<Result<_, _>>()?;
        let options: Vec<CString> = options.iter().map(|option| text(option)).collect::<Result<_, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (headers, names, switches) = (pointers(&headers), pointers(&names), pointers(&options));
        let f = &self.functions;
        let mut program = null_mut();
        // SAFETY: terminated strings and arrays of the stated lengths, alive during the calls; the program is used
        // between its creation and its end.
        unsafe {
            let count = headers.len() as c_int;
            let made = (f.create)(
                &mut program,
                source.as_ptr(),
                c"striate.cu".as_ptr(),
                count,
                headers.as_ptr(),
                names.as_ptr(),
            );
            self.check(made, "cannot create a program")?;
            let code = (f.compile)(program, switches.len() as c_int, switches.as_ptr());
            let log = self.bytes(program, f.log_size, f.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            let binary = options[0].as_bytes().windows(4).any(|word| word == b"=sm_");
            let (size, get) = if binary { (f.cubin_size, f.cubin) } else { (f.ptx_size, f.ptx) };
            let result = match code {
                0 => self.bytes(program, size, get),
                _ => self.check(code, &log).map(|()| Vec::new()),
            };
            (f.destroy)(&mut program);
            Ok(Compiled { code: result?, log })
        }
    }

    /// # Safety
    /// A live program, and two functions that tell a length and fill so many bytes.
    unsafe fn bytes(&self, program: Handle, size: Size, get: Bytes) -> Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: the caller's promise.
        self.check(unsafe { size(program, &mut length) }, "no result")?;
        let mut bytes = vec![0u8; length];
        // SAFETY: as above; the buffer has the length that was told.
        self.check(unsafe { get(program, bytes.as_mut_ptr().cast()) }, "no result")?;
        Ok(bytes)
    }

    fn check(&self, code: c_int, about: &str) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the answer is a constant string for every number.
        let text = unsafe { CStr::from_ptr((self.functions.error)(code)) }.to_string_lossy();
        Err(format!("NVRTC {}.{}: {text}: {about}", self.version.0, self.version.1))
    }
}

// SAFETY: NVRTC may be called from several threads at once, as its documentation says; the rest is plain data.
unsafe impl Send for Compiler {}
// SAFETY: as above.
unsafe impl Sync for Compiler {}
