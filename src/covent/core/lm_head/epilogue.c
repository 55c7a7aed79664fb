/* Row by row: sums of a tile of logits, and its gradient. The same numbers as epilogue.py, two passes over memory each.
   Plain C without headers beyond these, so that any compiler takes it; loops are written to become vector code. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define STRIP 512 /* columns summed in float32 before the sum goes on in double */
#define FAR -1e4f /* its exp is 0, and 0 times it is 0, where minus infinity would be NaN */

static inline float of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float wide(uint16_t half) { return of_bits((uint32_t)half << 16); }

/* To the nearest bfloat16, ties to even. Not for NaN. */
static inline uint16_t narrow(float value) {
  uint32_t bits = bits_of(value);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* exp(x) for x <= 0, relative error below 2e-7; 0 below -87. */
static inline float exp_of(float x) {
  float safe = x > -87.0f ? x : -87.0f;
  float n = safe * 1.44269504f;
  n = (n + 12582912.0f) - 12582912.0f; /* to the nearest integer: 1.5 * 2^23 has no bits left below 1 */
  float r = safe - n * 0.693359375f;   /* ln 2 in two parts; the first has few bits, so the product is exact */
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  float scaled = p * of_bits((uint32_t)((int32_t)n + 127) << 23);
  return x > -87.0f ? scaled : 0.0f;
}

#define SAME(value) (value)

#define EPILOGUE(NAME, TYPE, LOAD, STORE, NOT_A_NUMBER)                                                               \
  /* sums: [4 or 6, stride], the order of sums.py without the token's own logit, which has row 3. */                  \
  void fold_##NAME(const TYPE *z, int64_t rows, int64_t columns, const float *inverse, int extra, float *sums,         \
                   int64_t stride) {                                                                                   \
    for (int64_t i = 0; i < rows; i++, z += columns) {                                                                 \
      float top = -INFINITY, scale = inverse ? inverse[i] : 1.0f;                                                      \
      int32_t broken = 0;                                                                                              \
      _Pragma("omp simd reduction(max : top) reduction(+ : broken)")                                                   \
      for (int64_t j = 0; j < columns; j++) {                                                                          \
        float v = LOAD(z[j]);                                                                                          \
        broken += v != v;                                                                                              \
        top = v > top ? v : top;                                                                                       \
      }                                                                                                                \
      double s = 0, u = 0, q = 0, r = 0;                                                                               \
      int64_t ties = 0;                                                                                                \
      for (int64_t first = 0; first < columns && top > -INFINITY; first += STRIP) {                                    \
        int64_t last = first + STRIP < columns ? first + STRIP : columns;                                              \
        float s1 = 0, u1 = 0, q1 = 0, r1 = 0;                                                                          \
        int32_t equal = 0;                                                                                             \
        _Pragma("omp simd reduction(+ : s1, u1, q1, r1, equal)")                                                       \
        for (int64_t j = first; j < last; j++) {                                                                       \
          float v = LOAD(z[j]), d = (v - top) * scale;                                                                 \
          d = d > FAR ? d : FAR;                                                                                       \
          int32_t is_top = v == top;                                                                                   \
          float e = is_top ? 0.0f : exp_of(d), ed = e * d;                                                             \
          equal += is_top;                                                                                             \
          s1 += e;                                                                                                     \
          u1 += ed;                                                                                                    \
          q1 += e * e;                                                                                                 \
          r1 += e * ed;                                                                                                \
        }                                                                                                              \
        s += s1, u += u1, q += q1, r += r1, ties += equal;                                                             \
      }                                                                                                                \
      /* One maximum is left out of the sums; others of the same value count. */                                       \
      double more = ties > 0 ? (double)(ties - 1) : 0.0;                                                               \
      sums[i] = broken ? NAN : top;                                                                                    \
      sums[stride + i] = (float)(s + more);                                                                            \
      sums[2 * stride + i] = (float)u;                                                                                 \
      if (extra) {                                                                                                     \
        sums[4 * stride + i] = (float)(q + more);                                                                      \
        sums[5 * stride + i] = (float)r;                                                                               \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
                                                                                                                       \
  /* out = exp(d) (level + steep d); `out` may be `z`. */                                                              \
  void gradient_##NAME(const TYPE *z, int64_t rows, int64_t columns, const float *inverse, const float *top,           \
                       const float *level, const float *steep, TYPE *out) {                                            \
    for (int64_t i = 0; i < rows; i++, z += columns, out += columns) {                                                 \
      float scale = inverse ? inverse[i] : 1.0f, high = top[i], a = level[i], b = steep ? steep[i] : 0.0f;             \
      if (high != high || a != a || b != b) {                                                                          \
        for (int64_t j = 0; j < columns; j++) out[j] = NOT_A_NUMBER;                                                   \
        continue;                                                                                                      \
      }                                                                                                                \
      _Pragma("omp simd")                                                                                              \
      for (int64_t j = 0; j < columns; j++) {                                                                          \
        float d = (LOAD(z[j]) - high) * scale;                                                                         \
        d = d > FAR ? d : FAR;                                                                                         \
        out[j] = STORE(exp_of(d) * (a + b * d));                                                                       \
      }                                                                                                                \
    }                                                                                                                  \
  }

EPILOGUE(float32, float, SAME, SAME, NAN)
EPILOGUE(bfloat16, uint16_t, wide, narrow, 0x7fc0)
