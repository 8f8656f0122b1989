#pragma once

/// Before a function: it is compiled for AVX-512, for AVX2 and for any processor, and the program takes the best that this one can do when it is
/// loaded. What the loader asks for that runs before ThreadSanitizer is there, and would crash: under it, and on other processors than x86-64,
/// there is one form only.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define FUSION_VECTOR_CLONES [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define FUSION_VECTOR_CLONES
#endif
