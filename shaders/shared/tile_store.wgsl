            // Stores the four terms that a lane loaded.
            if lane < ${ROWS}u {
#for i in 0..4
                a_tile[half * ${4 * ROWS}u + (a_term + ${i}u) * ${ROWS / 4}u + (a_quad ^ (a_term / 2u))] = part0[${i}];
#end
            }
            if lane >= ${LANES - COLUMNS}u {
#for i in 0..4
                b_tile[half * ${4 * COLUMNS}u + (b_term + ${i}u) * ${COLUMNS / 4}u + (b_quad ^ (b_term / 2u))] = part${PART}[${i}];
#end
            }
