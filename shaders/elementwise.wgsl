// Element-wise kernels over tensors of any shape.
//
//   add            y = a + b
//   relu           y = max(a, 0)
//   relu_backward  y = a where b > 0, else 0         (a = dy, b = the forward pass's result, y = dx)
//   relu_backward_in_place  y = y where b > 0, else 0
//   scale          y = factor a
//   scale_by       y = a s                           (b[0].x = s, a device scalar)
//   axpy           y += factor a
//   broadcast      y = s                             (a[0].x = s)
//
// add, relu, both relu_backward and axpy have a twin for f16 tensors.
//
// Four elements an invocation, as one vec4: tensors are padded to 256 bytes, so the last vec4 may hold padding, which
// nobody reads. `pairs`, for Vulkan on a processor, takes eight, of which a tensor has whole ones. Workgroups of 256
// invocations along one dimension.
#variant vectors WIDTH=4 PAIRS=0
#variant pairs WIDTH=8 PAIRS=1

#f16

#if F16
enable f16;
#end

#import grid
#import pixels

struct Params {
    // units of WIDTH elements to compute
    count: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<Stored>;
@group(0) @binding(2) var<storage, read> b: array<Stored>;
@group(0) @binding(3) var<storage, read_write> y: array<Stored>;

@compute @workgroup_size(256)
fn add(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let of_a = a[i];
        let of_b = b[i];
#for h in 0..1+PAIRS
        let result${h} = pixels${h}(of_a) + pixels${h}(of_b);
#end
        y[i] = stored(result0, result${PAIRS});
    }
}

@compute @workgroup_size(256)
fn relu(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let of_a = a[i];
#for h in 0..1+PAIRS
        let result${h} = rectify(pixels${h}(of_a));
#end
        y[i] = stored(result0, result${PAIRS});
    }
}

@compute @workgroup_size(256)
fn relu_backward(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let of_a = a[i];
        let of_b = b[i];
#for h in 0..1+PAIRS
        let result${h} = select(Pixels(0.0), pixels${h}(of_a), pixels${h}(of_b) > Pixels(0.0));
#end
        y[i] = stored(result0, result${PAIRS});
    }
}

@compute @workgroup_size(256)
fn relu_backward_in_place(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let of_y = y[i];
        let of_b = b[i];
#for h in 0..1+PAIRS
        let result${h} = select(Pixels(0.0), pixels${h}(of_y), pixels${h}(of_b) > Pixels(0.0));
#end
        y[i] = stored(result0, result${PAIRS});
    }
}

#if F16 + PAIRS
#else
@compute @workgroup_size(256)
fn scale(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = params.factor * a[i];
    }
}

@compute @workgroup_size(256)
fn scale_by(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = a[i] * b[0].x;
    }
}
#end

@compute @workgroup_size(256)
fn axpy(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let of_y = y[i];
        let of_a = a[i];
#for h in 0..1+PAIRS
        let result${h} = pixels${h}(of_y) + params.factor * pixels${h}(of_a);
#end
        y[i] = stored(result0, result${PAIRS});
    }
}

#if F16 + PAIRS
#else
@compute @workgroup_size(256)
fn broadcast(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        y[i] = vec4f(a[0].x);
    }
}
#end
