// Raw words of rotsim's generator for a test battery: Threefry4x32-12 with the keys and counters of a walk.
//   g++ -O3 -march=native -o words benchmarks/words.cpp && ./words | dieharder -a -g 200
// Order: step, neuron, counter, as a walk of 64 neurons of dim 1024 uses them up.
#include <cstdint>
#include <cstdio>
#include <cstring>
using u = uint32_t;
static inline u rot(u x, int r) { return x << r | x >> (32 - r); }
static void threefry(int rounds, const u *key, const u *counter, u *x) {
    const int r[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5}, {6, 20}, {17, 11}, {25, 10}, {18, 20}};
    const u k[5] = {key[0], key[1], key[2], key[3], 0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
    for (int i = 0; i < 4; i++) x[i] = counter[i] + k[i];
    for (int i = 0; i < rounds; i++) {
        const int a = i % 2 ? 3 : 1, b = 4 - a;
        x[0] += x[a]; x[a] = rot(x[a], r[i % 8][0]) ^ x[0];
        x[2] += x[b]; x[b] = rot(x[b], r[i % 8][1]) ^ x[2];
        if (i % 4 == 3) {
            const int n = i / 4 + 1;
            for (int t = 0; t < 4; t++) x[t] += k[(n + t) % 5];
            x[3] += n;
        }
    }
}
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "check")) {  // a known answer that tests/test_noise.py holds
        const u c[4] = {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344};
        const u k[4] = {0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89};
        u o[4];
        threefry(13, k, c, o);
        printf("%s\n", o[0] == 0x4AA71D8F && o[3] == 0xAE6DEBF1 ? "ok" : "WRONG");
        return 0;
    }
    static u buffer[64 * 1024];
    for (u step = 1;; step++) {
        u *p = buffer;
        for (u neuron = 0; neuron < 64; neuron++) {
            const u none[4] = {0, 0, 0, 0}, which[4] = {neuron, 0, 0, 0};  // seed 0, gradient stream
            u hashed[4];
            threefry(12, none, which, hashed);
            const u key[4] = {hashed[0], hashed[1], 0, 0};
            for (u j = 0; j < 256; j++, p += 4) {
                const u counter[4] = {j, step, 0, 0};
                threefry(12, key, counter, p);
            }
        }
        if (fwrite(buffer, sizeof buffer, 1, stdout) != 1) return 0;
    }
}
