// cuDNN's backend interface: an interpreter of operation graphs with convolutions of NHWC tensors and what is fused to them.
#include <algorithm>
#include <memory>

#include "kernel.h"

namespace emulator {
int on_stream(void* stream, std::function<void()> call);
}

namespace {

// Numbers of cudnn_graph.h.
enum Kind { CONVOLUTION = 1, ENGINE = 2, ENGINE_CONFIG = 3, HEURISTIC = 4, PLAN = 5, FORWARD = 10, BACKWARD_FILTER = 11,
            BACKWARD_DATA = 12, POINTWISE = 13, GRAPH = 15, VARIANT_PACK = 16, TENSOR = 17, REDUCTION = 22, PROPERTIES = 38 };
enum Type { DESCRIPTOR = 15 };
enum Pointwise { ADD = 0, MULTIPLY = 2, IDENTITY = 21, RELU = 100, RELU_BACKWARD = 200 };
constexpr int SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, FLOAT = 0, BF16 = 9;

struct Descriptor {
    int kind;
    std::map<int, std::vector<char>> values;
    std::map<int, std::vector<std::shared_ptr<Descriptor>>> parts;

    template <class V> V get(int attribute, size_t i = 0) const {
        const auto found = values.find(attribute);
        if (found == values.end() || found->second.size() < (i + 1) * sizeof(V)) emulator::fail("a cuDNN attribute is not set");
        V value;
        std::memcpy(&value, found->second.data() + i * sizeof(V), sizeof(V));
        return value;
    }
    const Descriptor& part(int attribute) const {
        const auto found = parts.find(attribute);
        if (found == parts.end() || found->second.empty()) emulator::fail("a cuDNN descriptor is not set");
        return *found->second[0];
    }
    bool has(int attribute) const { return parts.count(attribute); }
};

struct Handle { void* stream = nullptr; };
using Pointer = std::shared_ptr<Descriptor>*;
std::string last_error;

size_t size_of(int type) {
    switch (type) {
        case 0: case 3: case 5: case 6: return 8;  // handle, int64, double, pointer
        case 2: case 24: return 1;                 // boolean, char
        case 26: return 16;
        default: return 4;                         // float and enums
    }
}

float bf16_to_float(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
}
uint16_t float_to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The values of a tensor in float, in the order n, h, w, c.
struct Values {
    int64_t n, c, h, w;
    std::vector<float> v;
    float& at(int64_t i, int64_t y, int64_t x, int64_t k) { return v[((i * h + y) * w + x) * c + k]; }
};

struct Run {
    std::map<int64_t, void*> pointers;
    std::map<int64_t, Values> values;

    Values& load(const Descriptor& tensor) {
        const auto uid = tensor.get<int64_t>(906);
        if (const auto found = values.find(uid); found != values.end()) return found->second;
        Values out = shape(tensor);
        visit(tensor, out, [](float& value, void* at, bool half) {
            value = half ? bf16_to_float(*static_cast<uint16_t*>(at)) : *static_cast<float*>(at);
        });
        return values[uid] = std::move(out);
    }
    void store(const Descriptor& tensor, Values out) {
        if (!tensor.get<char>(907)) {
            visit(tensor, out, [](float& value, void* at, bool half) {
                if (half) *static_cast<uint16_t*>(at) = float_to_bf16(value);
                else *static_cast<float*>(at) = value;
            });
        }
        values[tensor.get<int64_t>(906)] = std::move(out);
    }
    static Values shape(const Descriptor& tensor) {
        Values out{tensor.get<int64_t>(902, 0), tensor.get<int64_t>(902, 1), tensor.get<int64_t>(902, 2), tensor.get<int64_t>(902, 3), {}};
        out.v.assign(out.n * out.c * out.h * out.w, 0.0f);
        return out;
    }
    template <class F> void visit(const Descriptor& tensor, Values& all, F f) {
        const auto found = pointers.find(tensor.get<int64_t>(906));
        if (found == pointers.end()) emulator::fail("a tensor of a cuDNN graph has no pointer");
        const int type = tensor.get<int>(901);
        if (type != FLOAT && type != BF16) emulator::fail("a tensor of a cuDNN graph is neither float nor bf16");
        const size_t bytes = type == BF16 ? 2 : 4;
        if ((uintptr_t)found->second % tensor.get<int64_t>(900)) emulator::fail("a tensor is less aligned than its descriptor says");
        int64_t strides[4];
        for (int i = 0; i < 4; ++i) strides[i] = tensor.get<int64_t>(903, i);
        for (int64_t i = 0; i < all.n; ++i) for (int64_t y = 0; y < all.h; ++y) for (int64_t x = 0; x < all.w; ++x)
            for (int64_t k = 0; k < all.c; ++k)
                f(all.at(i, y, x, k), static_cast<char*>(found->second) + bytes * (i * strides[0] + k * strides[1] + y * strides[2] + x * strides[3]), type == BF16);
    }
};

// Calls `f` for every product of the convolution: image, output pixel, filter, tap, input pixel.
template <class F> void each_tap(const Values& x, const Values& w, const Values& y, int64_t pad, F f) {
    for (int64_t i = 0; i < y.n; ++i) for (int64_t oy = 0; oy < y.h; ++oy) for (int64_t ox = 0; ox < y.w; ++ox)
        for (int64_t r = 0; r < w.h; ++r) for (int64_t s = 0; s < w.w; ++s) {
            const int64_t iy = oy + r - pad, ix = ox + s - pad;
            if (iy >= 0 && iy < x.h && ix >= 0 && ix < x.w) f(i, oy, ox, r, s, iy, ix);
        }
}

void convolve(Run& run, const Descriptor& op, int base, int conv_attribute, int x_attribute, int w_attribute, int y_attribute) {
    const Descriptor& conv = op.part(conv_attribute);
    const int64_t pad = conv.get<int64_t>(105);
    if (op.get<float>(base) != 1.0f || op.get<float>(base + 1) != 0.0f) emulator::fail("a convolution with alpha or beta");
    if (op.kind == FORWARD) {
        Values &x = run.load(op.part(x_attribute)), &w = run.load(op.part(w_attribute));
        Values y = Run::shape(op.part(y_attribute));
        each_tap(x, w, y, pad, [&](auto i, auto oy, auto ox, auto r, auto s, auto iy, auto ix) {
            const float* from = &x.at(i, iy, ix, 0);
            for (int64_t k = 0; k < y.c; ++k) {
                const float* filter = &w.at(k, r, s, 0);
                float sum = 0.0f;
                for (int64_t c = 0; c < x.c; ++c) sum += from[c] * filter[c];
                y.at(i, oy, ox, k) += sum;
            }
        });
        run.store(op.part(y_attribute), std::move(y));
    } else if (op.kind == BACKWARD_DATA) {
        Values &w = run.load(op.part(w_attribute)), &dy = run.load(op.part(y_attribute));
        Values dx = Run::shape(op.part(x_attribute));
        each_tap(dx, w, dy, pad, [&](auto i, auto oy, auto ox, auto r, auto s, auto iy, auto ix) {
            float* to = &dx.at(i, iy, ix, 0);
            for (int64_t k = 0; k < dy.c; ++k) {
                const float g = dy.at(i, oy, ox, k), *filter = &w.at(k, r, s, 0);
                for (int64_t c = 0; c < dx.c; ++c) to[c] += g * filter[c];
            }
        });
        run.store(op.part(x_attribute), std::move(dx));
    } else {
        Values &x = run.load(op.part(x_attribute)), &dy = run.load(op.part(y_attribute));
        Values dw = Run::shape(op.part(w_attribute));
        each_tap(x, dw, dy, pad, [&](auto i, auto oy, auto ox, auto r, auto s, auto iy, auto ix) {
            const float* from = &x.at(i, iy, ix, 0);
            for (int64_t k = 0; k < dy.c; ++k) {
                const float g = dy.at(i, oy, ox, k);
                float* to = &dw.at(k, r, s, 0);
                for (int64_t c = 0; c < x.c; ++c) to[c] += g * from[c];
            }
        });
        run.store(op.part(w_attribute), std::move(dw));
    }
}

void pointwise(Run& run, const Descriptor& op) {
    const int mode = op.part(750).get<int>(0);
    if (mode == RELU_BACKWARD) {
        Values &y = run.load(op.part(751)), dx = run.load(op.part(757));
        for (size_t i = 0; i < dx.v.size(); ++i) dx.v[i] = y.v[i] > 0.0f ? dx.v[i] : 0.0f;
        return run.store(op.part(756), std::move(dx));
    }
    Values y = run.load(op.part(751));
    if (op.has(752)) {
        Values& b = run.load(op.part(752));
        for (size_t i = 0; i < y.v.size(); ++i) {
            const float other = b.v[b.v.size() == 1 ? 0 : b.v.size() == y.v.size() ? i : i % b.c];
            if (mode != ADD && mode != MULTIPLY) emulator::fail("a pointwise operation that is not emulated");
            y.v[i] = mode == ADD ? y.v[i] + other : y.v[i] * other;
        }
    } else {
        if (mode != RELU && mode != IDENTITY) emulator::fail("a pointwise operation that is not emulated");
        if (mode == RELU) for (float& v : y.v) v = v > 0.0f ? v : 0.0f;
    }
    run.store(op.part(753), std::move(y));
}

void reduce(Run& run, const Descriptor& op) {
    Values &x = run.load(op.part(1610)), y = Run::shape(op.part(1611));
    if ((int64_t)y.v.size() != x.c) emulator::fail("a reduction that is not per channel");
    for (size_t i = 0; i < x.v.size(); ++i) y.v[i % x.c] += x.v[i];
    run.store(op.part(1611), std::move(y));
}

void execute(const Descriptor& graph, const Descriptor& pack) {
    Run run;
    const auto& uids = pack.values.at(1000);
    for (size_t i = 0; i < uids.size() / 8; ++i) run.pointers[pack.get<int64_t>(1000, i)] = pack.get<void*>(1001, i);
    for (const auto& op : graph.parts.at(801)) {
        switch (op->kind) {
            case FORWARD: convolve(run, *op, 700, 702, 704, 703, 705); break;
            case BACKWARD_DATA: convolve(run, *op, 706, 708, 710, 709, 711); break;
            case BACKWARD_FILTER: convolve(run, *op, 712, 714, 716, 715, 717); break;
            case POINTWISE: pointwise(run, *op); break;
            case REDUCTION: reduce(run, *op); break;
            default: emulator::fail("an operation that is not emulated");
        }
    }
}

// Two engines, so that there is a choice; the second says that it is not deterministic.
constexpr int64_t ENGINES = 2;
constexpr int64_t WORKSPACE_BYTES = 1024;

}  // namespace

extern "C" {

size_t cudnnGetVersion() { return 91900; }
size_t cudnnGetCudartVersion() { return 13000; }
void cudnnGetLastErrorString(char* text, size_t bytes) { std::snprintf(text, bytes, "%s", last_error.c_str()); }
const char* cudnnGetErrorString(int status) { return status ? "CUDNN_STATUS_BAD_PARAM" : "CUDNN_STATUS_SUCCESS"; }
int cudnnCreate(Handle** handle) { *handle = new Handle; return SUCCESS; }
int cudnnDestroy(Handle* handle) { delete handle; return SUCCESS; }
int cudnnSetStream(Handle* handle, void* stream) { handle->stream = stream; return SUCCESS; }

int cudnnBackendCreateDescriptor(int kind, Pointer* descriptor) {
    *descriptor = new std::shared_ptr<Descriptor>(new Descriptor{kind, {}, {}});
    return SUCCESS;
}
int cudnnBackendDestroyDescriptor(Pointer descriptor) { delete descriptor; return SUCCESS; }
int cudnnBackendSetAttribute(Pointer descriptor, int name, int type, int64_t count, const void* values) {
    Descriptor& d = **descriptor;
    if (type == DESCRIPTOR) {
        auto& parts = d.parts[name];
        parts.clear();
        for (int64_t i = 0; i < count; ++i) parts.push_back(*static_cast<const Pointer*>(values)[i]);
        return SUCCESS;
    }
    const char* bytes = static_cast<const char*>(values);
    d.values[name].assign(bytes, bytes + count * size_of(type));
    return SUCCESS;
}
int cudnnBackendFinalize(Pointer descriptor) {
    const Descriptor& d = **descriptor;
    if (d.kind == TENSOR && d.get<int64_t>(902, 1) > 1 && d.get<int64_t>(903, 1) != 1) {
        last_error = "only channels-last tensors are emulated";
        return NOT_SUPPORTED;
    }
    if (d.kind == PLAN && !d.parts.count(401)) { last_error = "a plan without an engine"; return BAD_PARAM; }
    return SUCCESS;
}
int cudnnBackendGetAttribute(Pointer descriptor, int name, int, int64_t asked, int64_t* count, void* values) {
    Descriptor& d = **descriptor;
    if (d.kind == HEURISTIC && name == 202) {
        // The fallback list repeats what the first one has.
        *count = ENGINES;
        for (int64_t i = 0; i < std::min(asked, ENGINES); ++i) {
            Descriptor& config = **static_cast<Pointer*>(values)[i];
            auto engine = std::make_shared<Descriptor>(Descriptor{ENGINE, {}, {}});
            engine->parts[1300] = d.parts[201];
            engine->values[1301].assign((char*)&i, (char*)&i + 8);
            config.parts[300] = {engine};
        }
        return SUCCESS;
    }
    if (d.kind == ENGINE_CONFIG && name == 300) {
        *count = 1;
        if (asked) ***static_cast<Pointer*>(values) = *d.parts.at(300)[0];
        return SUCCESS;
    }
    if (d.kind == ENGINE && name == 1301) {
        *count = 1;
        std::memcpy(values, d.values.at(1301).data(), 8);
        return SUCCESS;
    }
    if (d.kind == ENGINE && name == 1303) {
        *count = d.get<int64_t>(1301) == 1;
        if (asked && *count) *static_cast<int*>(values) = 4;
        return SUCCESS;
    }
    if (d.kind == PLAN && name == 402) {
        *count = 1;
        *static_cast<int64_t*>(values) = WORKSPACE_BYTES;
        return SUCCESS;
    }
    if (d.kind == PROPERTIES && name == 2702) {
        const char text[] = "{\"deviceName\": \"emulated GPU\"}";
        *count = sizeof text - 1;
        if (asked) std::memcpy(values, text, std::min<int64_t>(asked, sizeof text - 1));
        return SUCCESS;
    }
    last_error = "an attribute that is not emulated";
    return NOT_SUPPORTED;
}
int cudnnBackendExecute(Handle* handle, Pointer plan, Pointer pack) {
    const auto graph = (*plan)->part(401).part(300).parts.at(1300)[0];
    const auto pointers = std::make_shared<Descriptor>(**pack);
    if (!pointers->get<void*>(1003)) { last_error = "no workspace"; return BAD_PARAM; }
    std::memset(pointers->get<void*>(1003), 0xff, WORKSPACE_BYTES);
    return emulator::on_stream(handle->stream, [=] { execute(*graph, *pointers); });
}

}  // extern "C"
