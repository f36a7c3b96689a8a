#if MATRIX
        // Adds the 16 terms in `half` of the tiles to the sums.
#for k in 0..16 / MATRIX
#for i in 0..ROWS / 2 / MATRIX
        let left${k}_${i} = coopLoad<MatrixA>(
            &a_tile[a_at(half, ${k * MATRIX}u, matrix_row / 4u + ${i * MATRIX / 4}u)], ${(ROWS + 8) / 4}u);
#end
#for j in 0..COLUMNS / 2 / MATRIX
        let right${k}_${j} = coopLoadT<MatrixB>(
            &b_tile[b_at(half, ${k * MATRIX}u, matrix_column / 4u + ${j * MATRIX / 4}u)], ${(COLUMNS + 8) / 4}u);
#end
#for i in 0..ROWS / 2 / MATRIX
#for j in 0..COLUMNS / 2 / MATRIX
        sum${i}_${j} = coopMultiplyAdd(left${k}_${i}, right${k}_${j}, sum${i}_${j});
#end
#end
#end
#else
        // Adds the 16 terms in `half` of the tiles to the sums. The factors of the next term are
        // loaded before a term is multiplied.
        for (var k = 0u; k < 16u; k += 4u) {
            let left_from = half * ${4 * ROWS}u + k * ${ROWS / 4}u + (rows ^ (k / 2u));
            let right_from = half * ${4 * COLUMNS}u + k * ${COLUMNS / 4}u + (columns ^ (k / 2u));
#for t in 0..5
#if t < 4
#for q in 0..2
            let left${t}_${q} = a_tile[left_from + ${t * ROWS / 4 + q * ROWS / 8}u];
#end
#for v in 0..QUADS
            let right${t}_${v} = b_tile[right_from + ${t * COLUMNS / 4 + 16 * v}u];
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
#end
