#!/usr/bin/env python3
"""Losses and gradient norms of the first 10 steps of a small gpt2 and a small llama, in float64 NumPy.

Independent of the C++ code: the model is written as the papers have it, with a tape of hand-written backward functions that
are checked against finite differences before anything is printed.

    python3 tests/golden/model_losses.py > tests/golden/model_losses.txt      (needs numpy)

Weights and tokens follow the formulas in fill() and batch(); tests/stages/golden_test.cc has the same.
"""
import numpy as np

V, T, C, H, KV, LAYERS = 61, 16, 32, 4, 2, 2
ROWS, MICRO_BATCHES, STEPS = 2, 2, 10
LR, BETA1, BETA2, EPS, DECAY, CLIP = 3e-3, 0.9, 0.95, 1e-8, 0.1, 1.0


class Var:
    def __init__(self, value):
        self.value, self.grad = value, np.zeros_like(value)


class Tape:
    """Each operation appends a function that adds to its inputs' gradients."""

    def __init__(self):
        self.steps = []

    def emit(self, value, backward):
        out = Var(value)
        self.steps.append(lambda: backward(out.grad))
        return out

    def backward(self, out, seed):
        out.grad = np.asarray(seed, dtype=np.float64) * np.ones_like(out.value)
        for step in reversed(self.steps):
            step()

    def linear(self, x, w, b=None):
        def backward(g):
            x.grad += g @ w.value
            w.grad += g.reshape(-1, g.shape[-1]).T @ x.value.reshape(-1, x.value.shape[-1])
            if b is not None:
                b.grad += g.reshape(-1, g.shape[-1]).sum(0)
        return self.emit(x.value @ w.value.T + (b.value if b is not None else 0), backward)

    def add(self, a, b):
        def backward(g):
            a.grad += g
            b.grad += g
        return self.emit(a.value + b.value, backward)

    def rows(self, table, index):
        def backward(g):
            np.add.at(table.grad, index, g)
        return self.emit(table.value[index], backward)

    def layer_norm(self, x, gamma, beta, eps=1e-5):
        mean = x.value.mean(-1, keepdims=True)
        rstd = 1 / np.sqrt(((x.value - mean) ** 2).mean(-1, keepdims=True) + eps)
        hat = (x.value - mean) * rstd

        def backward(g):
            gamma.grad += (g * hat).reshape(-1, g.shape[-1]).sum(0)
            beta.grad += g.reshape(-1, g.shape[-1]).sum(0)
            d = g * gamma.value
            x.grad += rstd * (d - d.mean(-1, keepdims=True) - hat * (d * hat).mean(-1, keepdims=True))
        return self.emit(hat * gamma.value + beta.value, backward)

    def rms_norm(self, x, gamma, eps=1e-5):
        rstd = 1 / np.sqrt((x.value ** 2).mean(-1, keepdims=True) + eps)
        hat = x.value * rstd

        def backward(g):
            gamma.grad += (g * hat).reshape(-1, g.shape[-1]).sum(0)
            d = g * gamma.value
            x.grad += rstd * (d - hat * (d * hat).mean(-1, keepdims=True))
        return self.emit(hat * gamma.value, backward)

    def gelu(self, x):
        k = np.sqrt(2 / np.pi)
        t = np.tanh(k * (x.value + 0.044715 * x.value ** 3))

        def backward(g):
            inner = k * (1 + 3 * 0.044715 * x.value ** 2)
            x.grad += g * (0.5 * (1 + t) + 0.5 * x.value * (1 - t * t) * inner)
        return self.emit(0.5 * x.value * (1 + t), backward)

    def swiglu(self, x):
        gate, up = np.split(x.value, 2, axis=-1)
        s = 1 / (1 + np.exp(-gate))

        def backward(g):
            x.grad += np.concatenate([g * up * s * (1 + gate * (1 - s)), g * gate * s], axis=-1)
        return self.emit(gate * s * up, backward)

    def attention(self, qkv, heads, kv_heads, theta):
        """Causal; with theta, queries and keys are rotated by position, halves against each other."""
        b, t, columns = qkv.value.shape
        d = columns // (heads + 2 * kv_heads)
        split = qkv.value.reshape(b, t, heads + 2 * kv_heads, d)
        if theta:
            angle = np.arange(t)[:, None] * theta ** (-2.0 * np.arange(d // 2) / d)
            cos, sin = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
        else:
            cos, sin = np.ones((1, 1, 1, d // 2)), np.zeros((1, 1, 1, d // 2))

        def rotate(x, sin):
            a, c = x[..., :d // 2], x[..., d // 2:]
            return np.concatenate([a * cos - c * sin, c * cos + a * sin], axis=-1)

        group = heads // kv_heads
        q = rotate(split[:, :, :heads], sin)
        k = np.repeat(rotate(split[:, :, heads:heads + kv_heads], sin), group, axis=2)
        v = np.repeat(split[:, :, heads + kv_heads:], group, axis=2)
        scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(d)
        scores = np.where(np.tril(np.ones((t, t), bool)), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)

        def backward(g):
            g = g.reshape(b, t, heads, d)
            dp = np.einsum("bthd,bshd->bhts", g, v)
            ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(d)
            dq = rotate(np.einsum("bhts,bshd->bthd", ds, k), -sin)
            dk = np.einsum("bhts,bthd->bshd", ds, q).reshape(b, t, kv_heads, group, d).sum(3)
            dv = np.einsum("bhts,bthd->bshd", p, g).reshape(b, t, kv_heads, group, d).sum(3)
            qkv.grad += np.concatenate([dq, rotate(dk, -sin), dv], axis=2).reshape(b, t, columns)
        return self.emit(np.einsum("bhts,bshd->bthd", p, v).reshape(b, t, heads * d), backward)

    def cross_entropy(self, logits, targets):
        """Sum over targets that are not negative."""
        valid = targets >= 0
        shifted = logits.value - logits.value.max(-1, keepdims=True)
        logp = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        safe = np.where(valid, targets, 0)
        picked = np.take_along_axis(logp, safe[..., None], -1)[..., 0]

        def backward(g):
            d = np.exp(logp)
            np.put_along_axis(d, safe[..., None], np.take_along_axis(d, safe[..., None], -1) - 1, -1)
            logits.grad += g * d * valid[..., None]
        return self.emit(-(picked * valid).sum(), backward)


def fill(index, shape, kind):
    """Parameter `index` of the model, rounded to float32 as the program holds it."""
    wave = np.sin(0.37 * np.arange(np.prod(shape)) + 1.3 * index)
    value = {"weight": 0.15 * wave, "gain": 1 + 0.05 * wave, "bias": 0.02 * wave}[kind]
    return value.astype(np.float32).astype(np.float64).reshape(shape)


def batch(step, micro_batch):
    i = np.arange(ROWS * T + 1) + 101 * micro_batch + 211 * step
    text = (i * i * 7 + i * 3) % V
    tokens, targets = text[:-1], text[1:].copy()
    targets[::7] = -1
    return tokens.reshape(ROWS, T), targets.reshape(ROWS, T)


def gpt2_specs():
    specs = [("wte", (V, C), "weight"), ("wpe", (T, C), "weight")]
    for layer in range(LAYERS):
        p = f"h.{layer}."
        specs += [(p + "ln_1.w", (C,), "gain"), (p + "ln_1.b", (C,), "bias"),
                  (p + "attn.w", (3 * C, C), "weight"), (p + "attn.b", (3 * C,), "bias"),
                  (p + "attn.proj.w", (C, C), "weight"), (p + "attn.proj.b", (C,), "bias"),
                  (p + "ln_2.w", (C,), "gain"), (p + "ln_2.b", (C,), "bias"),
                  (p + "fc.w", (4 * C, C), "weight"), (p + "fc.b", (4 * C,), "bias"),
                  (p + "fc.proj.w", (C, 4 * C), "weight"), (p + "fc.proj.b", (C,), "bias")]
    return specs + [("ln_f.w", (C,), "gain"), ("ln_f.b", (C,), "bias")]


def gpt2(tape, w, tokens, targets):
    x = tape.add(tape.rows(w["wte"], tokens), tape.rows(w["wpe"], np.broadcast_to(np.arange(T), tokens.shape)))
    for layer in range(LAYERS):
        p = f"h.{layer}."
        a = tape.layer_norm(x, w[p + "ln_1.w"], w[p + "ln_1.b"])
        a = tape.attention(tape.linear(a, w[p + "attn.w"], w[p + "attn.b"]), H, H, None)
        x = tape.add(x, tape.linear(a, w[p + "attn.proj.w"], w[p + "attn.proj.b"]))
        m = tape.layer_norm(x, w[p + "ln_2.w"], w[p + "ln_2.b"])
        m = tape.gelu(tape.linear(m, w[p + "fc.w"], w[p + "fc.b"]))
        x = tape.add(x, tape.linear(m, w[p + "fc.proj.w"], w[p + "fc.proj.b"]))
    x = tape.layer_norm(x, w["ln_f.w"], w["ln_f.b"])
    return tape.cross_entropy(tape.linear(x, w["wte"]), targets)


def llama_specs():
    d, width = C // H, 48
    specs = [("embed", (V, C), "weight")]
    for layer in range(LAYERS):
        p = f"{layer}."
        specs += [(p + "norm1", (C,), "gain"), (p + "qkv", ((H + 2 * KV) * d, C), "weight"), (p + "o", (C, C), "weight"),
                  (p + "norm2", (C,), "gain"), (p + "gate_up", (2 * width, C), "weight"), (p + "down", (C, width), "weight")]
    return specs + [("norm", (C,), "gain"), ("head", (V, C), "weight")]


def llama(tape, w, tokens, targets):
    x = tape.rows(w["embed"], tokens)
    for layer in range(LAYERS):
        p = f"{layer}."
        a = tape.attention(tape.linear(tape.rms_norm(x, w[p + "norm1"]), w[p + "qkv"]), H, KV, 10000.0)
        x = tape.add(x, tape.linear(a, w[p + "o"]))
        m = tape.swiglu(tape.linear(tape.rms_norm(x, w[p + "norm2"]), w[p + "gate_up"]))
        x = tape.add(x, tape.linear(m, w[p + "down"]))
    return tape.cross_entropy(tape.linear(tape.rms_norm(x, w["norm"]), w["head"]), targets)


def loss_and_gradients(model, values, step):
    """Mean loss over the step's valid targets, and its gradients."""
    batches = [batch(step, i) for i in range(MICRO_BATCHES)]
    valid = sum((targets >= 0).sum() for _, targets in batches)
    w = {name: Var(value) for name, value in values.items()}
    total = 0.0
    for tokens, targets in batches:
        tape = Tape()
        loss = model(tape, w, tokens, targets)
        total += loss.value
        tape.backward(loss, 1 / valid)
    return total / valid, {name: var.grad for name, var in w.items()}


def check_gradients(model, values):
    _, gradients = loss_and_gradients(model, values, 0)
    generator = np.random.default_rng(0)
    for name, value in values.items():
        for _ in range(3):
            at = tuple(generator.integers(size) for size in value.shape)
            kept, h = value[at], 1e-5
            value[at] = kept + h
            up, _ = loss_and_gradients(model, values, 0)
            value[at] = kept - h
            down, _ = loss_and_gradients(model, values, 0)
            value[at] = kept
            difference = (up - down) / (2 * h)
            assert abs(difference - gradients[name][at]) < 1e-8, (name, at, difference, gradients[name][at])


def train(name, model, specs):
    values = {n: fill(i, shape, kind) for i, (n, shape, kind) in enumerate(specs)}
    check_gradients(model, values)
    m = {n: np.zeros_like(v) for n, v in values.items()}
    v = {n: np.zeros_like(x) for n, x in values.items()}
    for step in range(STEPS):
        loss, gradients = loss_and_gradients(model, values, step)
        norm = np.sqrt(sum((g ** 2).sum() for g in gradients.values()))
        print(f"{name} {step} {loss:.9f} {norm:.9f}")
        scale = min(1.0, CLIP / norm)
        for n, g in gradients.items():
            g = g * scale
            m[n] = BETA1 * m[n] + (1 - BETA1) * g
            v[n] = BETA2 * v[n] + (1 - BETA2) * g * g
            mean, square = m[n] / (1 - BETA1 ** (step + 1)), v[n] / (1 - BETA2 ** (step + 1))
            decay = DECAY if values[n].ndim > 1 else 0.0
            values[n] = values[n] - LR * (mean / (np.sqrt(square) + EPS) + decay * values[n])


print("# Made by: python3 tests/golden/model_losses.py > tests/golden/model_losses.txt")
print("# model step loss gradient_norm")
train("gpt2", gpt2, gpt2_specs())
train("llama", llama, llama_specs())
