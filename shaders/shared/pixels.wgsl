// Neighbouring elements of a tensor of activations: as they are computed with, a test of each, and as they are stored,
// WIDTH of them. With PAIRS a stored unit holds eight, in two halves that are computed with apart; otherwise there is
// one half.
#import real
#if PAIRS
#import pairs
#end

#if WIDTH == 1
alias Pixels = f32;
alias Tests = bool;
#else
alias Pixels = vec4f;
alias Tests = vec4<bool>;
#end

#if PAIRS
#if F16
alias Stored = vec2<i64>;

fn four_of(halves: i64) -> vec4f {
    return vec4f(unpack2x16float(u32(halves)), unpack2x16float(u32(halves >> 32u)));
}

fn halves_of(four: vec4f) -> i64 {
    return pair_of(pack2x16float(four.xy), pack2x16float(four.zw));
}

fn pixels0(unit: Stored) -> Pixels {
    return four_of(unit.x);
}

fn pixels1(unit: Stored) -> Pixels {
    return four_of(unit.y);
}

fn stored(first: Pixels, second: Pixels) -> Stored {
    return vec2<i64>(halves_of(first), halves_of(second));
}
#else
alias Stored = vec4<i64>;

fn pixels0(unit: Stored) -> Pixels {
    return lower_four(unit);
}

fn pixels1(unit: Stored) -> Pixels {
    return upper_four(unit);
}

fn stored(first: Pixels, second: Pixels) -> Stored {
    return eight_of(first, second);
}
#end
#else
#if WIDTH == 1
alias Stored = real;
#else
alias Stored = real4;
#end

fn pixels0(unit: Stored) -> Pixels {
    return Pixels(unit);
}

// There is no second half: the first is given twice.
fn stored(first: Pixels, second: Pixels) -> Stored {
    return Stored(first);
}
#end

fn total(x: Pixels) -> f32 {
#if WIDTH == 1
    return x;
#else
    return (x.x + x.y) + (x.z + x.w);
#end
}

// max(x, 0) that keeps NaN: x < 0 is false for it.
fn rectify(x: Pixels) -> Pixels {
    return select(x, Pixels(0.0), x < Pixels(0.0));
}
