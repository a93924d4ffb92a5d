// A program around one kernel, so that the address sanitizer sees the kernel and not an interpreter: reads a launch and
// its buffers from standard input, each buffer into an allocation of exactly its size, and writes the buffers back.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

extern "C" const char* striate_error();
extern "C" int striate_launch(const unsigned grid[3], unsigned block, unsigned shared_bytes, const void* args,
                              unsigned long size, unsigned seed);

namespace {

template <class T>
std::vector<T> receive(size_t count) {
    std::vector<T> values(count);
    if (count != 0 && fread(values.data(), sizeof(T), count, stdin) != count) abort();
    return values;
}

}  // namespace

int main() {
    // grid x, y, z, block, shared bytes, seed; then how many bytes of arguments, buffers and addresses there are.
    const auto launch = receive<unsigned>(6);
    const auto counts = receive<uint64_t>(3);
    auto args = receive<unsigned char>(counts[0]);
    const auto sizes = receive<uint64_t>(counts[1]);
    // For each address: where in the arguments it stands, the buffer and the position in it.
    const auto addresses = receive<uint64_t>(3 * counts[2]);
    std::vector<unsigned char*> buffers;
    for (const uint64_t size : sizes) {
        buffers.push_back(static_cast<unsigned char*>(malloc(size)));
        if (fread(buffers.back(), 1, size, stdin) != size) abort();
    }
    for (size_t i = 0; i < addresses.size(); i += 3) {
        const void* address = buffers[addresses[i + 1]] + addresses[i + 2];
        memcpy(args.data() + addresses[i], &address, sizeof address);
    }
    if (striate_launch(launch.data(), launch[3], launch[4], args.data(), args.size(), launch[5]) != 0) {
        fprintf(stderr, "%s\n", striate_error());
        return 3;
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
        fwrite(buffers[i], 1, sizes[i], stdout);
        free(buffers[i]);
    }
    return 0;
}
