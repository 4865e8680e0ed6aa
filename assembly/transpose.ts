/** Transposing matrices. */

/** Rows of the source that fill a cache line of the target: it is written whole before the next one. */
const LINE_ROWS: i32 = 16;

/** Squares of 4 × 4: columns of the source at `src` become rows at `dst`. */
// @ts-ignore: decorator
@inline
function transposeSquare(src: usize, srcStride: usize, dst: usize, dstStride: usize): void {
  const a = v128.load(src);
  const b = v128.load(src + srcStride);
  const c = v128.load(src + 2 * srcStride);
  const d = v128.load(src + 3 * srcStride);
  const abLow = i32x4.shuffle(a, b, 0, 4, 1, 5);
  const abHigh = i32x4.shuffle(a, b, 2, 6, 3, 7);
  const cdLow = i32x4.shuffle(c, d, 0, 4, 1, 5);
  const cdHigh = i32x4.shuffle(c, d, 2, 6, 3, 7);
  v128.store(dst, i64x2.shuffle(abLow, cdLow, 0, 2));
  v128.store(dst + dstStride, i64x2.shuffle(abLow, cdLow, 1, 3));
  v128.store(dst + 2 * dstStride, i64x2.shuffle(abHigh, cdHigh, 0, 2));
  v128.store(dst + 3 * dstStride, i64x2.shuffle(abHigh, cdHigh, 1, 3));
}

/** `transposeBlock` for elements of 1, 2, 4 or 8 bytes. */
export function transposeElements(
  src: usize,
  srcCols: i32,
  dst: usize,
  dstCols: i32,
  rows: i32,
  cols: i32,
  elementBytes: i32,
): void {
  if (elementBytes == 1) transposeOf<u8>(src, srcCols, dst, dstCols, rows, cols);
  else if (elementBytes == 2) transposeOf<u16>(src, srcCols, dst, dstCols, rows, cols);
  else if (elementBytes == 4) transposeBlock(src, srcCols, dst, dstCols, rows, cols);
  else transposeOf<u64>(src, srcCols, dst, dstCols, rows, cols);
}

function transposeOf<T>(src: usize, srcCols: i32, dst: usize, dstCols: i32, rows: i32, cols: i32): void {
  const size = sizeof<T>();
  for (let top = 0; top < rows; top += LINE_ROWS) {
    const bottom = min(rows, top + LINE_ROWS);
    for (let col = 0; col < cols; ++col) {
      let from = src + (<usize>top * <usize>srcCols + <usize>col) * size;
      let to = dst + (<usize>col * <usize>dstCols + <usize>top) * size;
      for (let row = top; row < bottom; ++row) {
        store<T>(to, load<T>(from));
        from += <usize>srcCols * size;
        to += size;
      }
    }
  }
}

/**
 * Copies the `rows` × `cols` matrix at `src` to `dst`, element (r, c) to (c, r); `srcCols` and `dstCols` are the
 * elements of a row of the matrices that the two are parts of. Elements are 4 bytes of any kind.
 */
export function transposeBlock(src: usize, srcCols: i32, dst: usize, dstCols: i32, rows: i32, cols: i32): void {
  const srcStride = <usize>srcCols << 2;
  const dstStride = <usize>dstCols << 2;
  for (let top = 0; top < rows; top += LINE_ROWS) {
    const bottom = min(rows, top + LINE_ROWS);
    let col = 0;
    if (ASC_FEATURE_SIMD) {
      const squaresEnd = top + ((bottom - top) & -4);
      for (; col <= cols - 4; col += 4) {
        let row = top;
        for (; row < squaresEnd; row += 4) {
          transposeSquare(
            src + <usize>row * srcStride + (<usize>col << 2),
            srcStride,
            dst + <usize>col * dstStride + (<usize>row << 2),
            dstStride,
          );
        }
        for (; row < bottom; ++row) {
          for (let c = col; c < col + 4; ++c) copyElement(src, srcStride, dst, dstStride, row, c);
        }
      }
    }
    for (; col < cols; ++col) {
      for (let row = top; row < bottom; ++row) copyElement(src, srcStride, dst, dstStride, row, col);
    }
  }
}

// @ts-ignore: decorator
@inline
function copyElement(src: usize, srcStride: usize, dst: usize, dstStride: usize, row: i32, col: i32): void {
  const from = src + <usize>row * srcStride + (<usize>col << 2);
  store<u32>(dst + <usize>col * dstStride + (<usize>row << 2), load<u32>(from));
}
