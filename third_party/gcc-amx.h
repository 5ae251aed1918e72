// Included before every source where GCC tells its optimiser that ldtilecfg reads 8 of the 64 bytes
// that it reads (GCC bug 114098, mended in 11.5, 12.4, 13.3 and 14.1): the rest of the configuration
// is then never written, and the first product of matrices on AMX ends the process.
#if defined(__AMX_TILE__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) \
    __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
