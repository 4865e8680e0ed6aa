"""rtn, hqq and mse in float32 numpy, operation for operation as the kernels do them.

Written before the kernels, with which it agrees to the bit; generate.py makes the tests' reference vectors.
"""
import numpy as np

f = np.float32
np.seterr(all="ignore")


def lane_sum(x):
    """Sum over the last axis, a multiple of four long: element j to lane j mod 4, then ((0+1)+2)+3."""
    x = x.reshape(x.shape[:-1] + (-1, 4))
    acc = np.zeros(x.shape[:-2] + (4,), x.dtype)
    for k in range(x.shape[-2]):
        acc = acc + x[..., k, :]
    return ((acc[..., 0] + acc[..., 1]) + acc[..., 2]) + acc[..., 3]


class Spec:
    def __init__(self, bits, group, sb=None, zb=None, sup=1024, sym=False):
        self.bits, self.group, self.sb, self.zb, self.sym = bits, group, sb, zb, sym
        self.sup = sup if sb else None
        self.L = f(2**bits - 1)
        self.half = f(2 ** (bits - 1))
        self.zstep = f(self.L / f(2**zb - 1)) if zb else None


class Rows:
    """Rows cut into groups [R, G, P], P = group size rounded up to a multiple of four, zeros as padding."""

    def __init__(self, w, spec):
        self.R, self.C = w.shape
        n = spec.group
        self.G = -(-self.C // n)
        self.P = (n + 3) & -4
        x = np.pad(w, ((0, 0), (0, self.G * n - self.C))).reshape(self.R, self.G, n)
        self.w = np.pad(x, ((0, 0), (0, 0), (0, self.P - n)))
        m = np.pad(np.ones(self.C, bool), (0, self.G * n - self.C)).reshape(1, self.G, n)
        self.mask = np.pad(m, ((0, 0), (0, 0), (0, self.P - n)))
        self.count = self.mask.sum(2).astype(f)
        k = spec.sup // n if spec.sup else 1
        self.sid = np.arange(self.G) // k
        self.ns = int(self.sid[-1]) + 1
        self.n = n

    def flat(self, x):
        return x[:, :, : self.n].reshape(self.R, -1)[:, : self.C]

    def per_super(self, x, how):
        """x [R, G] to [R, ns]; sums go group by group."""
        out = []
        for k in range(self.ns):
            y = x[:, self.sid == k]
            acc = y[:, 0]
            for j in range(1, y.shape[1]):
                acc = how(acc, y[:, j])
            out.append(acc)
        return np.stack(out, 1)


def safe_div(a, b):
    return np.where(b == 0, f(0), a / np.where(b == 0, f(1), b)).astype(f)


def group_range(r):
    return np.minimum(r.w.min(2), f(0)) + f(0), np.maximum(r.w.max(2), f(0)) + f(0)


def range_scale(r, spec):
    """rtn's proposal: scale and (rounded) zero point."""
    lo, hi = group_range(r)
    if spec.sym:
        if spec.sb:
            s = np.maximum(hi, f(0) - lo) / (spec.half - f(1))
        else:
            first = np.take_along_axis(r.w, np.abs(r.w).argmax(2)[..., None], 2)[..., 0]
            s = (f(0) - first) / spec.half
        return s.astype(f), np.full(s.shape, spec.half, f)
    s = ((hi - lo) / spec.L).astype(f)
    return s, np.clip(np.rint(safe_div(f(0) - lo, s)), f(0), spec.L).astype(f)


def store_scales(r, s, spec):
    """(super scales [R, ns] or None, codes [R, G] or None, decoded [R, G])"""
    if not spec.sb:
        return None, None, s
    N = f(2**spec.sb - 1)
    S = (r.per_super(s, np.maximum) / N).astype(f)
    Sg = S[:, r.sid]
    c = np.where(Sg == 0, f(1), np.clip(np.rint(safe_div(s, Sg)), f(1), N)).astype(f)
    return S, c, (Sg * c).astype(f)


def store_zeros(z, spec):
    if spec.sym or not spec.zb:
        return None, z.astype(f)
    d = np.clip(np.rint(z / spec.zstep), f(0), f(2**spec.zb - 1)).astype(f)
    return d, (d * spec.zstep).astype(f)


def encode(r, s, z, spec):
    u = np.where(s == 0, f(0), r.w.transpose(2, 0, 1) / np.where(s == 0, f(1), s)).transpose(1, 2, 0)
    q = np.rint(np.clip(u + z[..., None], f(0), spec.L)).astype(f)
    return q, ((q - z[..., None]) * s[..., None]).astype(f)


def rtn(w, spec):
    r = Rows(w, spec)
    s, z = range_scale(r, spec)
    S, c, s = store_scales(r, s, spec)
    d, z = store_zeros(z, spec)
    q, x = encode(r, s, z, spec)
    return dict(codes=r.flat(q), rebuilt=r.flat(x), S=S, c=c, d=d, s=s, z=z)


# ---- hqq
N3, N2, N1, N0 = f(0.36989322304725647), f(3.2606184482574463), f(2.385571002960205), f(0.17933431267738342)
D2, D1, D0 = f(3.724663496017456), f(1.425452470779419), f(0.04527799412608147)


def hqq(w, spec, iterations=20):
    r = Rows(w, spec)
    lo, _ = group_range(r)
    s, _ = range_scale(r, spec)
    S, c, s = store_scales(r, s, spec)
    u = np.where(s[..., None] == 0, f(0), r.w / np.where(s == 0, f(1), s)[..., None]).astype(f)
    z = safe_div(f(0) - lo, s)
    beta, best, best_z = f(10), None, z
    for step in range(iterations + 1):
        inv = f(1) / beta
        t = (u + z[..., None]).astype(f)
        res = t - np.rint(np.clip(t, f(0), spec.L))
        res = np.where(r.mask, res, f(0))
        size = np.abs(res)
        error = np.zeros(r.R, np.float64)
        group_error = s.astype(np.float64) * lane_sum(size).astype(np.float64)
        # the kernel adds groups block by block
        per_block = 2048 // ((r.n + 7) & -8)
        for first in range(0, r.G, per_block):
            e = np.zeros(r.R, np.float64)
            for g in range(first, min(first + per_block, r.G)):
                e = e + group_error[:, g]
            error = error + e
        if best is None:
            best = error
        else:
            better = error < best
            best = np.where(better, error, best)
            best_z = np.where(better[:, None], z, best_z)
        x = size
        n = (((N3 * inv) * x + (N2 * inv)) * x + (N1 * inv)) * x + (N0 * inv)
        d = ((x + D2) * x + D1) * x + D0
        pull = np.copysign(np.minimum(size, n / d), res)
        z = (z - lane_sum(pull) / r.count).astype(f)
        beta = f(beta * f(1.01))
    d, z = store_zeros(best_z, spec)
    q, x = encode(r, s, z, spec)
    return dict(codes=r.flat(q), rebuilt=r.flat(x), S=S, c=c, d=d, s=s, z=z)


# ---- mse
SHRINK = [f(1), f(0.9), f(0.8), f(0.7)]
SHRINK_FAR = [f(0.6), f(0.5), f(0.4), f(0.3)]
FACTORS = [f(0.97), f(1.03), f(0.94), f(1.06)]
OFFSETS = [-1, 1, -2, 2]
FREE_STEP = f(0.25)
REFITS = 3
ROUNDS = 2
GAIN_ROUNDS = 2
LEAST = f(2.0**-100)


def pow2_down(m):
    """2^-floor(log2 m) for m >= 2^-100, 1 otherwise"""
    e = (np.ascontiguousarray(m).view(np.uint32) >> 23).astype(np.int64) - 127
    return np.where(m >= LEAST, np.ldexp(f(1), -e), f(1)).astype(f)


class Search:
    def __init__(self, w, spec, weighting, h):
        self.spec, self.r = spec, Rows(w, spec)
        r, L = self.r, spec.L
        if h is None:
            hr = np.ones(r.C, f)
        else:
            hr = (h * pow2_down(np.array([h.max()], f))[0]).astype(f)
        m = np.abs(w).max(1)
        v = np.broadcast_to(hr, w.shape)
        if weighting:
            wr = (w * pow2_down(m)[:, None]).astype(f)
            sq = np.pad(wr * wr, ((0, 0), (0, -r.C % 4)))
            sigma2 = (lane_sum(sq) / f(r.C)).astype(f)
            v = (hr * np.sqrt(sigma2[:, None] + wr * wr)).astype(f)
        x = np.pad(v, ((0, 0), (0, r.G * r.n - r.C))).reshape(r.R, r.G, r.n)
        self.v = np.pad(x, ((0, 0), (0, 0), (0, r.P - r.n)))
        self.unit_max = r.per_super(np.abs(r.w).max(2), np.maximum)
        self.k = pow2_down(self.unit_max)
        self.w = (r.w * self.k[:, r.sid][..., None]).astype(f)
        self.lo = np.minimum(self.w.min(2), f(0)) + f(0)
        self.hi = np.maximum(self.w.max(2), f(0)) + f(0)

    def residual(self, s, z):
        inv = np.where(s == 0, f(0), f(1) / np.where(s == 0, f(1), s)).astype(f)
        t = (self.w * inv[..., None] + z[..., None]).astype(f)
        q = np.rint(np.clip(t, f(0), self.spec.L)).astype(f)
        return (t - q).astype(f), q

    def error(self, s, z):
        res, _ = self.residual(s, z)
        return (lane_sum((res * res) * self.v) * (s * s)).astype(f)

    def moments(self, s, z):
        res, q = self.residual(s, z)
        x = (q - z[..., None]).astype(f)
        e = (self.w - (x * s[..., None]).astype(f)).astype(f)
        vr, vx = res * self.v, x * self.v
        v = np.broadcast_to(self.v, vr.shape)
        return [lane_sum(y) for y in ((e * e) * self.v, vx * res, vx * x, vr, vx, v)]

    def start(self):
        spec = self.spec
        if spec.sym:
            s0, z0 = (range_scale_sym(self, spec)), None
            z0 = np.full(s0.shape, spec.half, f)
        else:
            s0 = ((self.hi - self.lo) / spec.L).astype(f)
            z0 = safe_div(f(0) - self.lo, s0)
        E = None
        for a in SHRINK + (SHRINK_FAR if spec.sym or spec.bits <= 2 else []):
            s = (s0 * a).astype(f)
            e = self.error(s, z0)
            if E is None:
                E, best = e, s
            else:
                b = e < E
                E, best = np.where(b, e, E), np.where(b, s, best)
        return best, z0

    def sweep(self, trial, at, E, low, high):
        """at + offsets clamped, the first of least error"""
        best = at
        for o in OFFSETS:
            x = np.clip(at + f(o), low, high).astype(f)
            e = trial(x)
            b = e < E
            E, best = np.where(b, e, E), np.where(b, x, best)
        return best, E


def range_scale_sym(S, spec):
    if spec.sb:
        return (np.maximum(S.hi, f(0) - S.lo) / (spec.half - f(1))).astype(f)
    first = np.take_along_axis(S.w, np.abs(S.w).argmax(2)[..., None], 2)[..., 0]
    return ((f(0) - first) / spec.half).astype(f)


def mse(w, spec, weighting=False, gain=False, h=None):
    A = Search(w, spec, weighting, h)
    r = A.r
    rs, rz = range_scale(r, spec)
    rS, rc, rs = store_scales(r, rs, spec)
    rd, rz = store_zeros(rz, spec)
    kg = A.k[:, r.sid]
    T0 = r.per_super(A.moments((rs * kg).astype(f), rz)[0].astype(np.float64), np.add)

    T0 = T0 * (1 - 2.0**-12)

    s, z = A.start()
    free = not spec.sym and not spec.zb
    step = spec.zstep if spec.zb else FREE_STEP
    dlow, dhigh = (f(0), f(2**spec.zb - 1)) if spec.zb else (-spec.L / step, f(2) * spec.L / step)
    if spec.sym:
        d = z
    else:
        d = (z / step).astype(f)
        if spec.zb:
            d = np.clip(np.rint(d), dlow, dhigh)
    zof = (lambda d: z) if spec.sym else (lambda d: (d * step).astype(f))

    if spec.sb:
        N = f(2**spec.sb - 1)
        S = (r.per_super(s, np.maximum) / N).astype(f)
        Sg = S[:, r.sid]
        c = np.clip(np.rint(safe_div(s, Sg)), f(1), N).astype(f)
        best = None
        for rd_ in range(ROUNDS):
            sg = (Sg * c).astype(f)
            if spec.sym:
                E = A.moments(sg, z)[0]
            else:
                E = A.error(sg, zof(d))
                d, E = A.sweep(lambda x: A.error(sg, zof(x)), d, E, dlow, dhigh)
            c, E = A.sweep(lambda x: A.error((Sg * x).astype(f), zof(d)), c, E, f(1), N)
            m = A.moments((Sg * c).astype(f), zof(d))
            T = r.per_super(m[0].astype(np.float64), np.add)
            if best is None:
                best = (T, S, c, zof(d), d)
            else:
                b = T < best[0]
                bg = b[:, r.sid]
                zz = zof(d)
                found, where = (T, S, c, zz, d), (b, b, bg, bg, bg)
                best = tuple(np.where(on, new, old) for on, new, old in zip(where, found, best))
            if rd_ == ROUNDS - 1:
                break
            c2 = c.astype(np.float64) * c
            num = r.per_super(c2 * m[1], np.add)
            den = r.per_super(c2 * m[2], np.add)
            change = np.where(den > 0, num / np.where(den > 0, den, 1), 0)
            S2 = (S.astype(np.float64) * (1 + change)).astype(f)
            S = np.where(S2 > 0, S2, S)
            Sg = S[:, r.sid]
            if free:
                d = (d * f(4)).astype(f)
                step = step / f(4)
                dlow, dhigh = dlow * f(4), dhigh * f(4)
        T, S, c, z, d = best
        better = (T < T0) & (A.unit_max >= LEAST)
        bg = better[:, r.sid]
        S = np.where(better, (S / A.k).astype(f), rS)
        c = np.where(bg, c, rc)
        z = np.where(bg, z, rz)
        d = None if spec.sym or not spec.zb else np.where(bg, d, rd)
        s = (S[:, r.sid] * c).astype(f)
    else:
        if spec.sym:
            E = A.moments(s, z)[0]
        else:
            E = A.error(s, zof(d))
            d, E = A.sweep(lambda x: A.error(s, zof(x)), d, E, dlow, dhigh)
        z = zof(d)
        s0 = s
        for m in FACTORS:
            x = (s0 * m).astype(f)
            e = A.error(x, z)
            b = e < E
            E, s = np.where(b, e, E), np.where(b, x, s)
        bs, bd, bz = s, d, z
        live = np.ones(s.shape, bool)
        for it in range(REFITS + 1):
            m = A.moments(s, z)
            e = m[0]
            if it == 0:
                E = e
            else:
                live = live & (e < E)
                E = np.where(live, e, E)
                bs, bd, bz = np.where(live, s, bs), np.where(live, d, bd), np.where(live, z, bz)
            if it == REFITS:
                break
            rr, xr, xx, vr, vx, V = [y.astype(np.float64) for y in m]
            al = np.where(xx > 0, xr / np.where(xx > 0, xx, 1), 0)
            be = np.zeros_like(al)
            if not spec.sym:
                det = V * xx - vx * vx
                ok = det > 1e-6 * V * xx
                dd = np.where(ok, det, 1)
                al = np.where(ok, (V * xr - vx * vr) / dd, al)
                be = np.where(ok, (xx * vr - vx * xr) / dd, 0)
            good = 1 + al > 0
            s = np.where(good, s * (1 + al), s).astype(f)
            if not spec.sym:
                zn = np.where(good, z - be / (1 + al), z)
                if spec.zb:
                    d = np.clip(np.rint(zn.astype(f) / step), dlow, dhigh).astype(f)
                    z = zof(d)
                else:
                    z = np.clip(zn.astype(f), -spec.L, f(2) * spec.L).astype(f)
        better = (E.astype(np.float64) < T0) & (A.unit_max >= LEAST)
        S, c = None, None
        s = np.where(better, (bs / A.k).astype(f), rs)
        z = np.where(better, bz, rz)
        d = np.where(better, bd, rd) if spec.zb and not spec.sym else None
    q, x = encode(r, s, z, spec)
    if gain:
        hh = np.ones(r.C, f) if h is None else h
        wf = w.astype(np.float64)
        for _ in range(GAIN_ROUNDS):
            xf = r.flat(x).astype(np.float64)
            pad = ((0, 0), (0, -r.C % 4))
            num = lane_sum(np.pad(hh * wf * wf, pad))
            den = lane_sum(np.pad(hh * wf * xf, pad))
            k = np.where(den > 0, num / np.where(den > 0, den, 1), 1)
            k = np.where(k > 2, 1, k).astype(f)[:, None]
            if spec.sb:
                S = (S * k).astype(f)
                s = (S[:, r.sid] * c).astype(f)
            else:
                s = (s * k).astype(f)
            q, x = encode(r, s, z, spec)
    return dict(codes=r.flat(q), rebuilt=r.flat(x), S=S, c=c, d=d, s=s, z=z)
