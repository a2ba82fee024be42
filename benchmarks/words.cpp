// Raw words of rotsim's generator for a test battery: ChaCha's quarter round, four times, with the keys and counters of a
// walk. Another number of rounds and another seed may be given:
//   g++ -O3 -march=native -o words benchmarks/words.cpp && ./words 4 0 | RNG_test stdin32 -tf 2
// benchmarks/results/practrand.txt has what PractRand found.
// Order: step, neuron, counter, word, as a walk of 64 neurons of dim 1024 uses them up.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
using u = uint32_t;
static inline u rot(u x, int r) { return x << r | x >> (32 - r); }
static void quarter_rounds(int rounds, u *x) {
    for (int i = 0; i < rounds; i++) {
        x[0] += x[1]; x[3] = rot(x[3] ^ x[0], 16);
        x[2] += x[3]; x[1] = rot(x[1] ^ x[2], 12);
        x[0] += x[1]; x[3] = rot(x[3] ^ x[0], 8);
        x[2] += x[3]; x[1] = rot(x[1] ^ x[2], 7);
    }
}
static void words(int rounds, u key0, u key1, u counter0, u counter1, u *x) {
    x[0] = key0 ^ 0x61707865, x[1] = key1 ^ 0x3320646E, x[2] = counter0, x[3] = counter1;
    quarter_rounds(rounds, x);
}
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "check")) {  // a known answer that tests/test_noise.py holds
        u x[4] = {0x11111111, 0x01020304, 0x9B8D6F43, 0x01234567};
        quarter_rounds(1, x);
        printf("%s\n", x[0] == 0xEA2A92F4 && x[3] == 0x5881C4BB ? "ok" : "WRONG");
        return 0;
    }
    const int rounds = argc > 1 ? atoi(argv[1]) : 4;
    const u seed = argc > 2 ? strtoul(argv[2], nullptr, 10) : 0;
    static u buffer[64 * 512];
    for (u step = 1;; step++) {
        u *p = buffer;
        for (u neuron = 0; neuron < 64; neuron++) {
            u key[4];
            words(4, seed, 0, neuron, 0, key);  // gradient stream
            for (u j = 0; j < 128; j++, p += 4) words(rounds, key[0], key[1], j, step, p);
        }
        if (fwrite(buffer, sizeof buffer, 1, stdout) != 1) return 0;
    }
}
