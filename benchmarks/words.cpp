// Raw words of rotsim's generator for a test battery: Threefry2x32-13 with the keys and counters of a walk.
//   g++ -O3 -march=native -o words benchmarks/words.cpp && ./words | dieharder -a -g 200
// Order: neuron, step, pair of coordinates, as a walk of 64 neurons of dim 1024 uses them up.
#include <cstdint>
#include <cstdio>
#include <cstring>
using u = uint32_t;
static inline u rot(u x, int r) { return x << r | x >> (32 - r); }
static void threefry(u k0, u k1, u c0, u c1, u *out) {
    const int r[8] = {13, 15, 26, 6, 17, 29, 16, 24};
    const u k[3] = {k0, k1, 0x1BD11BDAu ^ k0 ^ k1};
    u x0 = c0 + k0, x1 = c1 + k1;
    for (u i = 0; i < 13; i++) {
        x0 += x1; x1 = rot(x1, r[i % 8]) ^ x0;
        if (i % 4 == 3) { u n = i / 4 + 1; x0 += k[n % 3]; x1 += k[(n + 1) % 3] + n; }
    }
    out[0] = x0; out[1] = x1;
}
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "check")) {  // the known answer that tests/test_noise.py holds
        u o[2]; threefry(0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, o);
        printf("%s\n", o[0] == 0xBA3E4725 && o[1] == 0xF27D669E ? "ok" : "WRONG");
        return 0;
    }
    static u buffer[64 * 1024];
    for (u step = 1;; step++) {
        u *p = buffer;
        for (u neuron = 0; neuron < 64; neuron++) {
            u key[2]; threefry(0, 0, neuron, 0, key);  // seed 0, gradient stream
            for (u pair = 0; pair < 512; pair++, p += 2) threefry(key[0], key[1], pair, step, p);
        }
        if (fwrite(buffer, sizeof buffer, 1, stdout) != 1) return 0;
    }
}
