#include "base/base.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

void lsi_rng_init(struct lsi_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) { /* splitmix64: no seed gives the all-zero state */
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        r->s[i] = z ^ z >> 31;
    }
}

uint64_t lsi_rng_u64(struct lsi_rng *r)
{
    uint64_t *s = r->s;
    const uint64_t out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double lsi_rng_double(struct lsi_rng *r)
{
    return (double)(lsi_rng_u64(r) >> 11) * 0x1p-53;
}

uint64_t lsi_rng_below(struct lsi_rng *r, uint64_t n)
{
    const uint64_t reject = -n % n; /* values below it would favour small results */
    uint64_t x;
    do
        x = lsi_rng_u64(r);
    while (x < reject);
    return x % n;
}

double lsi_rng_normal(struct lsi_rng *r)
{
    const double u = 1 - lsi_rng_double(r), v = lsi_rng_double(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}
