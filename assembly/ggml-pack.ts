/**
 * Codes of a block, one a byte, to ggml's layouts (ggml-common.h; read back in ggml-blocks.ts and
 * ggml-super-blocks.ts). Eight bytes at a time in one 64-bit word, alike in both builds.
 */

/** The word of bytes `x`. */
// @ts-ignore: decorator
@inline
function every(x: u64): u64 {
  return x * 0x0101010101010101;
}

/** Bit `bit` of each of eight bytes, the first byte's lowest. */
// @ts-ignore: decorator
@inline
function gatherBits(bytes: u64, bit: u64): u64 {
  return (((bytes >> bit) & every(1)) * 0x0102040810204080) >> 56;
}

/** 32 codes: the lower four bits to 16 bytes at `dst`. */
export function packNibbles32(codes: usize, dst: usize): void {
  for (let j: usize = 0; j < 16; j += 8) {
    store<u64>(dst + j, (load<u64>(codes + j) & every(15)) | ((load<u64>(codes + j, 16) & every(15)) << 4));
  }
}

/** 32 codes: the fifth bits to a word at `dst`. */
export function packFifths32(codes: usize, dst: usize): void {
  for (let j: usize = 0; j < 4; ++j) store<u8>(dst + j, <u8>gatherBits(load<u64>(codes + (j << 3)), 4));
}

/** 256 codes: the lower two bits, as Q2_K and Q3_K have them, to 64 bytes. */
export function packPairs256(codes: usize, dst: usize): void {
  for (let half = 0; half < 2; ++half, codes += 128) {
    for (const end = dst + 32; dst < end; dst += 8, codes += 8) {
      store<u64>(
        dst,
        (load<u64>(codes) & every(3)) |
          ((load<u64>(codes, 32) & every(3)) << 2) |
          ((load<u64>(codes, 64) & every(3)) << 4) |
          ((load<u64>(codes, 96) & every(3)) << 6),
      );
    }
    codes -= 32;
  }
}

/** 256 codes: bit `bit`, of element 32·i + j as bit i of byte j of 32. */
export function packBits256(codes: usize, dst: usize, bit: u64): void {
  for (let j: usize = 0; j < 32; j += 8) {
    let word: u64 = 0;
    for (let i: u64 = 0; i < 8; ++i) word |= ((load<u64>(codes + j + (<usize>i << 5)) >> bit) & every(1)) << i;
    store<u64>(dst + j, word);
  }
}

/** 256 codes: the lower four bits, as Q4_K and Q5_K have them, to 128 bytes. */
export function packNibbles256(codes: usize, dst: usize): void {
  for (let pair = 0; pair < 4; ++pair, codes += 32) {
    for (const end = dst + 32; dst < end; dst += 8, codes += 8) {
      store<u64>(dst, (load<u64>(codes) & every(15)) | ((load<u64>(codes, 32) & every(15)) << 4));
    }
  }
}

/** 256 codes of six bits, as Q6_K has them: 128 bytes of lower four bits, then 64 of upper two. */
export function packSixes256(codes: usize, dst: usize): void {
  for (let half = 0; half < 2; ++half, codes += 128) {
    const low = dst + (half << 6);
    const upper = dst + 128 + (half << 5);
    for (let j: usize = 0; j < 64; j += 8) {
      const first = load<u64>(codes + j), second = load<u64>(codes + j, 64);
      store<u64>(low + j, (first & every(15)) | ((second & every(15)) << 4));
    }
    for (let j: usize = 0; j < 32; j += 8) {
      store<u64>(
        upper + j,
        ((load<u64>(codes + j) >> 4) & every(3)) |
          (((load<u64>(codes + j, 32) >> 4) & every(3)) << 2) |
          (((load<u64>(codes + j, 64) >> 4) & every(3)) << 4) |
          (((load<u64>(codes + j, 96) >> 4) & every(3)) << 6),
      );
    }
  }
}

/** Signed six-bit scales plus 32 of a Q3_K block to its 12 bytes. */
export function packScalesOfQ3(scales: usize, dst: usize): void {
  const first = load<u64>(scales), second = load<u64>(scales, 8);
  store<u64>(dst, (first & every(15)) | ((second & every(15)) << 4));
  for (let j: usize = 0; j < 4; ++j) {
    let byte: u32 = 0;
    for (let i: usize = 0; i < 4; ++i) byte |= (<u32>load<u8>(scales + j + (i << 2)) >> 4) << <u32>(i << 1);
    store<u8>(dst + j, <u8>byte, 8);
  }
}

/** Eight six-bit scales and eight minima of a Q4_K or Q5_K block to its 12 bytes. */
export function packScalesOfQ4(scales: usize, minima: usize, dst: usize): void {
  for (let g: usize = 0; g < 4; ++g) {
    const scale = <u32>load<u8>(scales + g, 4), minimum = <u32>load<u8>(minima + g, 4);
    store<u8>(dst + g, <u8>(<u32>load<u8>(scales + g) | ((scale >> 4) << 6)));
    store<u8>(dst + g, <u8>(<u32>load<u8>(minima + g) | ((minimum >> 4) << 6)), 4);
    store<u8>(dst + g, <u8>((scale & 15) | ((minimum & 15) << 4)), 8);
  }
}
