//! The text under `cuda/` that kernels include, kept inside the library.

macro_rules! headers {
    ($($name:literal)*) => {
        /// Name and text of every header.
        pub const HEADERS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../cuda/", $name)))),*];
    };
}

headers!(
    "activation.cuh" "axis.cuh" "branches.cuh" "causal.cuh" "dcls.cuh" "delays.cuh" "depthwise.cuh" "fft.cuh" "pool.cuh"
    "scalar.cuh" "statistics.cuh" "tile.cuh" "toeplitz.cuh" "toeplitz_weigh.cuh" "window.cuh"
);
