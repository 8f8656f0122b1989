"""The reference spectrogram of AV-MNIST with numpy's FFT: x.npy (float64 samples) to y.npy (112 x 112, uint8)."""
import sys

import numpy as np

x = np.load(sys.argv[1])
L = len(x)
i, j = next((i, j) for i in range(-(-L // 112) - 1, 224) for j in range(i) if 113 * i - 112 * j > L >= 112 * i - 111 * j)
w = np.hanning(i)
frames = np.stack([x[s * (i - j):s * (i - j) + i] * w for s in range(112)])
power = np.abs(np.fft.fft(frames, n=223)[:, :112]) ** 2 / (8000 * (w ** 2).sum())
power[:, 1:(111 if i % 2 == 0 else 112)] *= 2
with np.errstate(divide="ignore"):
    level = 10 * np.log10(power.T[::-1])
low, high = level[np.isfinite(level)].min(), level.max()
ramp = np.array([255, 240, 217, 189, 150, 115, 82, 37, 0])
q = np.minimum(np.floor(256 * (np.maximum(level, low) - low) / (high - low)).astype(int), 255)
k = np.minimum(8 * q // 255, 7)
np.save(sys.argv[2], np.ascontiguousarray(((255 * ramp[k] + (ramp[k + 1] - ramp[k]) * (8 * q - 255 * k)) // 255).astype(np.uint8)))
