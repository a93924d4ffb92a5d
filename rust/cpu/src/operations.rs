//! How a file of this crate becomes rows of the table of operations.

/// One row per instruction set. The module offers `DTYPES`, `supports`, `work`, `workspace::<I>` and `run::<I>`.
macro_rules! on_every_isa {
    ($op:literal, $note:literal) => {
        &[
            #[cfg(target_arch = "x86_64")]
            $crate::operations::on_isa!($op, $note, striate_simd::x86::Avx512, "avx512"),
            #[cfg(target_arch = "x86_64")]
            $crate::operations::on_isa!($op, $note, striate_simd::x86::Avx2, "avx2"),
            #[cfg(target_arch = "aarch64")]
            $crate::operations::on_isa!($op, $note, striate_simd::neon::Neon, "neon"),
            $crate::operations::on_isa!($op, $note, striate_simd::portable::Portable, "portable"),
        ]
    };
}

macro_rules! on_isa {
    ($op:literal, $note:literal, $token:ty, $isa:literal) => {
        striate_core::Operation {
            name: concat!($op, ".", $isa),
            op: $op,
            dtypes: DTYPES,
            isa: $isa,
            available: || <$token as striate_simd::Isa>::detect().is_some(),
            supports,
            work,
            workspace: workspace::<$token>,
            run: |request, arguments, pool| {
                let isa = <$token as striate_simd::Isa>::detect().expect("a row runs only where it is available");
                run(isa, request, arguments, pool);
            },
            note: $note,
        }
    };
}

pub(crate) use on_every_isa;
pub(crate) use on_isa;
