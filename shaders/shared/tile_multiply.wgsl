        // Adds the 16 terms in `half` of the tiles to the sums. The factors of the next term are
        // loaded before a term is multiplied.
        for (var k = 0u; k < 16u; k += 4u) {
            let a_at = half * ${4 * ROWS}u + k * ${ROWS / 4}u + (rows ^ (k / 2u));
            let b_at = half * ${4 * COLUMNS}u + k * ${COLUMNS / 4}u + (columns ^ (k / 2u));
#for t in 0..5
#if t < 4
#for q in 0..2
            let left${t}_${q} = a_tile[a_at + ${t * ROWS / 4 + q * ROWS / 8}u];
#end
#for v in 0..QUADS
            let right${t}_${v} = b_tile[b_at + ${t * COLUMNS / 4 + 16 * v}u];
#end
#end
#if t > 0
#for v in 0..QUADS
#for r in 0..8
            sum${r}_${v} = fma(vec4f(left${t - 1}_${r / 4}[${r % 4}]), right${t - 1}_${v}, sum${r}_${v});
#end
#end
#end
#end
        }
