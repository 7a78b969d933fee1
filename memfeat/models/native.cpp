// The time loops of a bidirectional GRU layer, for native.py. No threads: a process has one core.
//
// Rows. The caller's arrays are packed: by step, then by sequence, the longest sequence first. The
// rows of time t are start(t) + b for the running(t) sequences that reach t, so any step is done by
// the first sequences of the batch. That suits both directions: the forward one only loses
// sequences on its way, and the backward one, from the last time to the first, only gains them. One
// that starts finds its part of the working state as it was made, zero.
//
// Blocking. Nearly all work of a step is a product of a few states (sequences x hidden) with a
// matrix that stays in the caches. It is cut into blocks of up to kRows sequences, shared out
// evenly, by one panel: kGates vectors of outputs in the forward pass, kWide in the backward one.
// The sums of a block stay in registers from the first weight to the last: 8 x 3 vectors where
// there are 32 registers, 4 x 3 where there are 16. Each call first copies the weights into panels,
// in the order in which the blocks read them, with zeros after the last output. So only what
// touches the caller's arrays need know that `hidden` may be no multiple of a vector. Each sum is
// made in one order, whatever else is in the batch: a sequence gets the same bits alone and among
// others.
//
// Memory. A step's rows come from far away (the arrays of a layer are larger than the inner caches)
// and would take as long as its arithmetic. So they are prefetched during the step before.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using std::int64_t;

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 8;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 4;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRows = 8;
#else
constexpr int kBytes = 16, kRows = 4;
#endif
constexpr int kGates = 3;  // r, z, n: torch's order
constexpr int kWide = 2;
constexpr int kLine = 64;

typedef float Floats __attribute__((vector_size(kBytes)));
typedef double Doubles __attribute__((vector_size(kBytes)));
typedef std::uint32_t Bits __attribute__((vector_size(kBytes)));

typedef std::int32_t FloatsInts __attribute__((vector_size(kBytes)));
typedef std::int64_t DoublesInts __attribute__((vector_size(kBytes)));
typedef std::int16_t FloatsShorts __attribute__((vector_size(kBytes / 2)));
typedef std::int16_t DoublesShorts __attribute__((vector_size(kBytes / 4)));

// Vectors of numbers, and of as many integers.
template <class T> struct VectorOf;
template <> struct VectorOf<float> {
  using type = Floats;
  using integers = FloatsInts;
  using shorts = FloatsShorts;
};
template <> struct VectorOf<double> {
  using type = Doubles;
  using integers = DoublesInts;
  using shorts = DoublesShorts;
};
template <class T> using Vec = typename VectorOf<T>::type;
template <class T> using Integers = typename VectorOf<T>::integers;
template <class T> using Shorts = typename VectorOf<T>::shorts;
template <class T> constexpr int kLanes = kBytes / sizeof(T);

template <class T> Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, kBytes);
  return v;
}

template <class T> void store(T* to, Vec<T> v) { std::memcpy(to, &v, kBytes); }

// The first `count` numbers, all of a vector or fewer; the other lanes are zero.
template <class T> Vec<T> load(const T* from, int64_t count) {
  if (count >= kLanes<T>) return load(from);
  Vec<T> v{};
  std::memcpy(&v, from, count * sizeof(T));
  return v;
}

template <class T> void store(T* to, Vec<T> v, int64_t count) {
  if (count >= kLanes<T>) return store(to, v);
  std::memcpy(to, &v, count * sizeof(T));
}

// Keeps NaN, which compares false with all.
inline Floats clamp(Floats x, float limit) {
  const Floats high = Floats{} + limit, low = -high;
  x = x > high ? high : x;
  return x < low ? low : x;
}

// e^x = scale * (1 + rest), with `rest` as exact for a small x as x is. |x| < 87, or NaN.
inline void exponential(Floats x, Floats& scale, Floats& rest) {
  // Adding this rounds to an integer and leaves it, with the bias of an exponent, in the low bits.
  const float shift = 0x1.8p23f + 127;
  const Floats shifted = x * 1.44269504f + shift;
  const Floats whole = shifted - shift;
  scale = (Floats)((Bits)shifted << 23);
  // ln 2 in two parts, the first with few digits; then e^f = 1 + f + f^2 p(f), for |f| < 0.35 with
  // an error of 3e-9. (p is what minimises the largest error; half its terms wait for no others.)
  const Floats f = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const Floats f2 = f * f;
  const Floats low = f * 0x1.555490p-3f + 0x1.fffffcp-2f;
  const Floats high = f * 0x1.123b02p-7f + 0x1.5558f8p-5f;
  rest = ((f2 * 0x1.6a2256p-10f + high) * f2 + low) * f2 + f;
}

inline Floats sigmoid(Floats x) {
  Floats scale, rest;
  exponential(-clamp(x, 80), scale, rest);
  return 1.0f / (scale * rest + (scale + 1.0f));
}

inline Floats tanh(Floats x) {
  Floats scale, rest;
  exponential(2.0f * clamp(x, 10), scale, rest);
  const Floats less_one = scale * rest + (scale - 1.0f);
  return less_one / (less_one + 2.0f);
}

inline Doubles sigmoid(Doubles x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = 1 / (1 + std::exp(-x[i]));
  return x;
}

inline Doubles tanh(Doubles x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::tanh(x[i]);
  return x;
}

// Zeroed working memory on vectors' bounds.
template <class T> class Scratch {
 public:
  explicit Scratch(int64_t size) : lines_(size * sizeof(T) / kBytes + 1) {}
  T* get() { return reinterpret_cast<T*>(lines_.data()); }

 private:
  struct alignas(kBytes) Line {
    char bytes[kBytes];
  };
  std::vector<Line> lines_;
};

// Equally long parts of rows that lie `stride` numbers apart.
template <class T> struct Rows {
  T* first;
  int64_t stride;
  T* operator[](int64_t row) const { return first + row * stride; }
};

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Where the rows of each time lie. No sequence runs at times that are none.
class Times {
 public:
  // False if the batch sizes are not positive, grow, or do not add up to the rows.
  bool plan(const int64_t* batch_sizes, int64_t steps, int64_t rows) {
    start_.assign(1, 0);
    for (int64_t t = 0; t < steps; ++t) {
      if (batch_sizes[t] < 1 || batch_sizes[t] > (t ? batch_sizes[t - 1] : rows)) return false;
      start_.push_back(start_.back() + batch_sizes[t]);
    }
    return start_.back() == rows;
  }
  int64_t count() const { return static_cast<int64_t>(start_.size()) - 1; }
  int64_t most_running() const { return running(0); }
  int64_t start(int64_t t) const { return start_[std::clamp<int64_t>(t, 0, count())]; }
  int64_t running(int64_t t) const {
    return t < 0 || t >= count() ? 0 : start_[t + 1] - start_[t];
  }

 private:
  std::vector<int64_t> start_;
};

// Calls f(first row, number of rows as a constant) for blocks that share out all rows evenly.
template <int R = kRows, class F> void call_with(int64_t rows, const F& f) {
  if constexpr (R > 1) {
    if (rows < R) return call_with<R - 1>(rows, f);
  }
  f(std::integral_constant<int, R>{});
}

template <class F> void for_blocks(int64_t rows, const F& f) {
  const int64_t blocks = (rows + kRows - 1) / kRows;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t first = rows * i / blocks, last = rows * (i + 1) / blocks;
    call_with(last - first, [&](auto count) { f(first, count); });
  }
}

// The cache lines that the next step will touch, to be asked for one by one in a product's loop.
class Ahead {
 public:
  struct Line {
    std::uintptr_t first, stride;  // the address in row 0, and the bytes from row to row
  };
  struct Part {
    const Line* lines;
    std::uintptr_t row;
    void fetch(int64_t i) const {
      __builtin_prefetch(reinterpret_cast<const void*>(lines[i].first + row * lines[i].stride));
    }
  };

  // A step has up to `rows` rows; a product asks for `depth` lines.
  Ahead(int64_t rows, int64_t depth) : rows_(rows), depth_(depth), lines_(depth) {}

  // Adds an array's part that begins `offset` rows from the step's rows.
  template <class T> void add(Rows<T> array, int64_t count, int64_t offset = 0) {
    const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(array.first);
    const std::uintptr_t stride = array.stride * sizeof(T), size = count * sizeof(T);
    lines_.resize(lines_.size() - depth_);
    for (int64_t b = 0; b < rows_; ++b)
      for (std::uintptr_t at = 0; at < size; at += kLine)
        lines_.push_back({first + (offset + b) * stride + at, stride});
    // Products may ask for more than there is. These lines are nowhere, which does no harm.
    lines_.resize(lines_.size() + depth_);
  }

  void next_step(int64_t row) { row_ = row, used_ = 0; }

  Part next_product() {
    const int64_t at = std::min<int64_t>(used_, lines_.size() - depth_);
    used_ += depth_;
    return {&lines_[at], static_cast<std::uintptr_t>(row_)};
  }

 private:
  int64_t rows_, depth_, row_ = 0, used_ = 0;
  std::vector<Line> lines_;
};

// The sums over k of a[r][k] * panel[k][v], for R rows and V vectors of outputs; added to what is
// in `out`, or stored there.
template <int R, int V, bool ADD, class T>
inline void multiply(Rows<const T> a, const T* panel, int64_t depth, Rows<T> out,
                     Ahead::Part ahead) {
  constexpr int64_t lanes = kLanes<T>;
  Vec<T> sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[r][v] = ADD ? load(out[r] + v * lanes) : Vec<T>{};
  for (int64_t k = 0; k < depth; ++k, panel += V * lanes) {
    ahead.fetch(k);
    Vec<T> weights[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) weights[v] = load(panel + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][v] += a[r][k] * weights[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(out[r] + v * lanes, sums[r][v]);
}

// One direction.
struct Way {
  const Times& times;
  int64_t hidden, direction;

  int64_t time(int64_t step) const { return direction ? times.count() - 1 - step : step; }
  int64_t before(int64_t t) const { return direction ? t + 1 : t - 1; }
  int64_t after(int64_t t) const { return direction ? t - 1 : t + 1; }
};

// weight (3 * hidden, hidden) as [panel of outputs][k][gate][lane].
template <class T> void pack_forward(const T* weight, int64_t hidden, T* panels) {
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t j = 0; j < hidden; ++j)
    for (int64_t gate = 0; gate < kGates; ++gate) {
      const T* from = weight + (gate * hidden + j) * hidden;
      T* to = panels + (j / lanes * hidden * kGates + gate) * lanes + j % lanes;
      for (int64_t k = 0; k < hidden; ++k) to[k * kGates * lanes] = from[k];
    }
}

// weight (3 * hidden, hidden) as [panel of outputs][k of 3 * hidden][lane of kWide vectors].
template <class T> void pack_backward(const T* weight, int64_t hidden, T* panels) {
  constexpr int64_t wide = kWide * kLanes<T>;
  for (int64_t j = 0; j < hidden; j += wide)
    for (int64_t k = 0; k < kGates * hidden; ++k, panels += wide)
      std::memcpy(panels, weight + k * hidden + j, std::min(wide, hidden - j) * sizeof(T));
}

// Dropout of a layer's states: of each, 16 random bits decide. Without it `bits` is null.
template <class T> struct Dropout {
  Rows<const std::int16_t> bits;
  int threshold;
  T scale;

  // What is left of some states, or of their gradients, of which the first is `at` in `row`.
  template <class Count> Vec<T> keep(Vec<T> x, int64_t row, int64_t at, Count count) const {
    if (!bits.first) return x;
    Shorts<T> drawn{};
    std::memcpy(&drawn, bits[row] + at, std::min<int64_t>(count, kLanes<T>) * sizeof drawn[0]);
    return __builtin_convertvector(drawn, Integers<T>) >= threshold ? x * scale : Vec<T>{};
  }
};

// The arrays of the forward pass of one direction.
template <class T> struct Forward {
  Rows<T> gates, states, new_hidden, kept;
  const T *bias, *b_new;
  Dropout<T> dropout;
};

// Turns the products of some rows with the panel of outputs j... into gates and states. `count` is
// how many outputs that are; where it is a constant, so are the ways to load and store.
template <class T, class Count>
void apply_gates(const Forward<T>& a, int64_t row, int64_t rows, int64_t hidden, int64_t j,
                 Count count, Rows<const T> products, Rows<T> h, Rows<T> h_next) {
  const T* bias = a.bias + j;
  const Vec<T> b_r = load(bias, count), b_z = load(bias + hidden, count);
  const Vec<T> b_n = load(bias + 2 * hidden, count), b_c = load(a.b_new + j, count);
  for (int64_t i = 0; i < rows; ++i) {
    T* gate = a.gates[row + i] + j;
    const T* product = products[i];
    const Vec<T> r = sigmoid(load(gate, count) + b_r + load(product));
    const Vec<T> z = sigmoid(load(gate + hidden, count) + b_z + load(product + kLanes<T>));
    const Vec<T> c = load(product + 2 * kLanes<T>) + b_c;
    const Vec<T> n = tanh(load(gate + 2 * hidden, count) + b_n + r * c);
    const Vec<T> next = n + z * (load(h[i] + j) - n);
    store(gate, r, count);
    store(gate + hidden, z, count);
    store(gate + 2 * hidden, n, count);
    store(a.new_hidden[row + i] + j, c, count);
    store(a.states[row + i] + j, next, count);
    store(h_next[i] + j, next);
    if (a.dropout.bits.first)
      store(a.kept[row + i] + j, a.dropout.keep(next, row + i, j, count), count);
  }
}

// `h` and `h_next`: the working states, of all sequences, whole vectors; zero.
template <class T>
void run_forward(const Way& way, const Forward<T>& a, const T* panels, Rows<T> h, Rows<T> h_next) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t hidden = way.hidden, whole = hidden / lanes * lanes;
  alignas(kBytes) T products[kRows * kGates * lanes];
  const Rows<T> out{products, kGates * lanes};
  Ahead ahead(way.times.most_running(), hidden);
  ahead.add(a.gates, kGates * hidden);
  ahead.add(a.states, hidden);
  ahead.add(a.new_hidden, hidden);
  for (int64_t step = 0; step < way.times.count(); ++step, std::swap(h, h_next)) {
    const int64_t t = way.time(step);
    ahead.next_step(way.times.start(way.after(t)));
    for_blocks(way.times.running(t), [&](int64_t first, auto rows) {
      const int64_t row = way.times.start(t) + first;
      const Rows<T> from{h[first], h.stride}, to{h_next[first], h.stride};
      for (int64_t j = 0; j < hidden; j += lanes) {
        multiply<rows, kGates, false, T>({from.first, from.stride}, panels + j * kGates * hidden,
                                         hidden, out, ahead.next_product());
        if (j < whole) {
          constexpr std::integral_constant<int64_t, lanes> all;
          apply_gates<T>(a, row, rows, hidden, j, all, {products, out.stride}, from, to);
        } else {
          apply_gates<T>(a, row, rows, hidden, j, hidden - j, {products, out.stride}, from, to);
        }
      }
    });
  }
}

// The arrays of the backward pass of one direction; the last three are written.
template <class T> struct Backward {
  Rows<const T> d_states, gates, new_hidden, states;
  Rows<T> d_gates, d_new, before;
  Dropout<T> dropout;
};

// One row's gradients before the nonlinearities. `h` is the state before; `carry` what later steps
// say of the row's state, and afterwards the part that goes straight on to the state before.
template <class T>
void apply_gradients(const Backward<T>& a, int64_t row, int64_t hidden, const T* h, T* carry) {
  const T *gates = a.gates[row], *new_hidden = a.new_hidden[row], *d_states = a.d_states[row];
  T *d_gates = a.d_gates[row], *d_new = a.d_new[row], *before = a.before[row];
  for (int64_t j = 0; j < hidden; j += kLanes<T>) {
    const int64_t count = hidden - j;
    const Vec<T> r = load(gates + j, count), z = load(gates + hidden + j, count);
    const Vec<T> n = load(gates + 2 * hidden + j, count), c = load(new_hidden + j, count);
    const Vec<T> past = load(h + j, count);
    const Vec<T> d = a.dropout.keep(load(d_states + j, count), row, j, count) + load(carry + j);
    const Vec<T> d_n = d * (T{1} - z) * (T{1} - n * n);
    const Vec<T> d_c = d_n * r;
    store(d_gates + j, d_c * c * (T{1} - r), count);
    store(d_gates + hidden + j, d * (past - n) * z * (T{1} - z), count);
    store(d_gates + 2 * hidden + j, d_c, count);
    store(d_new + j, d_n, count);
    store(before + j, past, count);
    store(carry + j, d * z);
  }
}

// `carry`: of all sequences, whole panels; zero. `zeros`: a state of those.
template <class T>
void run_backward(const Way& way, const Backward<T>& a, const T* panels, const T* zeros,
                  Rows<T> carry) {
  constexpr int64_t wide = kWide * kLanes<T>;
  const int64_t hidden = way.hidden, depth = kGates * hidden, most = way.times.most_running();
  Ahead ahead(most, depth);
  ahead.add(a.gates, depth);
  ahead.add(a.d_gates, depth);
  ahead.add(a.states, hidden, way.direction ? most : -most);
  ahead.add(a.d_states, hidden);
  ahead.add(a.new_hidden, hidden);
  ahead.add(a.d_new, hidden);
  ahead.add(a.before, hidden);
  for (int64_t step = way.times.count() - 1; step >= 0; --step) {
    const int64_t t = way.time(step), start = way.times.start(t), running = way.times.running(t);
    const int64_t before = way.before(t), start_before = way.times.start(before);
    // What comes before a sequence's first step is a constant.
    const int64_t continued = std::min(running, way.times.running(before));
    for (int64_t b = 0; b < running; ++b) {
      const T* h = b < continued ? a.states[start_before + b] : zeros;
      apply_gradients(a, start + b, hidden, h, carry[b]);
    }
    ahead.next_step(start_before);
    for_blocks(continued, [&](int64_t first, auto rows) {
      const Rows<const T> d_gates{a.d_gates[start + first], a.d_gates.stride};
      for (int64_t j = 0; j < hidden; j += wide)
        multiply<rows, kWide, true, T>(d_gates, panels + j * depth, depth,
                                       {carry[first] + j, carry.stride}, ahead.next_product());
    });
  }
}

struct Sizes {
  int64_t steps, rows, hidden;
};

// One direction's part of an array (rows, 2, width).
template <class T> Rows<T> part(T* array, int64_t direction, int64_t width) {
  return {array + direction * width, 2 * width};
}

// Likewise of the bits, which there may be none of.
template <class T>
Dropout<T> part(const std::int16_t* bits, int threshold, double scale, int64_t direction,
                int64_t hidden) {
  if (!bits) return {};
  return {part(bits, direction, hidden), threshold, static_cast<T>(scale)};
}

template <class T>
bool forward(Sizes s, const int64_t* batch_sizes, T* projected, const T* bias, const T* w_hidden,
             const T* b_new, T* states, T* new_hidden, T* kept, const std::int16_t* bits,
             int threshold, double scale) {
  const int64_t hidden = s.hidden, gates = kGates * hidden, width = round_up(hidden, kLanes<T>);
  Times times;
  if (!times.plan(batch_sizes, s.steps, s.rows)) return false;
  const int64_t batch = times.most_running();
  Scratch<T> panels(width * gates);
  for (int64_t d = 0; d < 2; ++d, w_hidden += gates * hidden, bias += gates, b_new += hidden) {
    const Forward<T> a{part(projected, d, gates),
                       part(states, d, hidden),
                       part(new_hidden, d, hidden),
                       part(kept, d, hidden),
                       bias,
                       b_new,
                       part<T>(bits, threshold, scale, d, hidden)};
    Scratch<T> h(batch * width), h_next(batch * width);
    pack_forward(w_hidden, hidden, panels.get());
    run_forward<T>({times, hidden, d}, a, panels.get(), {h.get(), width}, {h_next.get(), width});
  }
  return true;
}

template <class T>
bool backward(Sizes s, const int64_t* batch_sizes, const T* d_states, const T* gates,
              const T* new_hidden, const T* states, const T* w_hidden, T* d_gates, T* d_new,
              T* before, const std::int16_t* bits, int threshold, double scale) {
  const int64_t hidden = s.hidden, depth = kGates * hidden;
  const int64_t width = round_up(hidden, kWide * kLanes<T>);
  Times times;
  if (!times.plan(batch_sizes, s.steps, s.rows)) return false;
  Scratch<T> panels(width * depth), zeros(hidden);
  for (int64_t d = 0; d < 2; ++d, w_hidden += depth * hidden) {
    const Backward<T> a{part(d_states, d, hidden),
                        part(gates, d, depth),
                        part(new_hidden, d, hidden),
                        part(states, d, hidden),
                        part(d_gates, d, depth),
                        part(d_new, d, hidden),
                        part(before, d, hidden),
                        part<T>(bits, threshold, scale, d, hidden)};
    Scratch<T> carry(times.most_running() * width);
    pack_backward(w_hidden, hidden, panels.get());
    run_backward<T>({times, hidden, d}, a, panels.get(), zeros.get(), {carry.get(), width});
  }
  return true;
}

}  // namespace

// Shapes are those of native.py. False: the batch sizes do not fit the rows. Nothing is thrown but
// for want of memory, and that ends the process.
#define MEMFEAT_EXPORT(T)                                                                          \
  extern "C" bool memfeat_forward_##T(                                                             \
      Sizes s, const int64_t* batch_sizes, T* projected, const T* bias, const T* w_hidden,         \
      const T* b_new, T* states, T* new_hidden, T* kept, const std::int16_t* bits, int threshold,  \
      double scale) noexcept {                                                                     \
    return forward(s, batch_sizes, projected, bias, w_hidden, b_new, states, new_hidden, kept,     \
                   bits, threshold, scale);                                                        \
  }                                                                                                \
  extern "C" bool memfeat_backward_##T(                                                            \
      Sizes s, const int64_t* batch_sizes, const T* d_states, const T* gates, const T* new_hidden, \
      const T* states, const T* w_hidden, T* d_gates, T* d_new, T* before,                         \
      const std::int16_t* bits, int threshold, double scale) noexcept {                            \
    return backward(s, batch_sizes, d_states, gates, new_hidden, states, w_hidden, d_gates, d_new, \
                    before, bits, threshold, scale);                                               \
  }

MEMFEAT_EXPORT(float)
MEMFEAT_EXPORT(double)
