/* One product of ggml's kernels on zeros, for tools that count its instructions.
 *
 * usage: peer KERNEL ROWS INPUTS; 16 outputs, or one where a kernel makes one.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTPUTS 16
#define BYTES (1 << 22)

typedef void dot(int n, float *s, size_t bs, const void *vx, size_t bx, const void *vy, size_t by, int nrc);
typedef void product(int n, float *s, size_t bs, const void *vx, const void *vy, int nr, int nc);

dot ggml_vec_dot_q4_0_q8_0, ggml_vec_dot_q4_K_q8_K, ggml_vec_dot_q8_0_q8_0;
product ggml_gemv_q4_0_4x4_q8_0, ggml_gemv_q4_K_8x4_q8_K, ggml_gemv_q8_0_4x4_q8_0;
product ggml_gemm_q4_0_4x4_q8_0, ggml_gemm_q4_K_8x4_q8_K, ggml_gemm_q8_0_4x4_q8_0;

static const struct { const char *name; dot *dot; product *product; } kernels[] = {
    {"ggml_vec_dot_q4_0_q8_0", ggml_vec_dot_q4_0_q8_0, NULL},
    {"ggml_vec_dot_q4_K_q8_K", ggml_vec_dot_q4_K_q8_K, NULL},
    {"ggml_vec_dot_q8_0_q8_0", ggml_vec_dot_q8_0_q8_0, NULL},
    {"ggml_gemv_q4_0_4x4_q8_0", NULL, ggml_gemv_q4_0_4x4_q8_0},
    {"ggml_gemv_q4_K_8x4_q8_K", NULL, ggml_gemv_q4_K_8x4_q8_K},
    {"ggml_gemv_q8_0_4x4_q8_0", NULL, ggml_gemv_q8_0_4x4_q8_0},
    {"ggml_gemm_q4_0_4x4_q8_0", NULL, ggml_gemm_q4_0_4x4_q8_0},
    {"ggml_gemm_q4_K_8x4_q8_K", NULL, ggml_gemm_q4_K_8x4_q8_K},
    {"ggml_gemm_q8_0_4x4_q8_0", NULL, ggml_gemm_q8_0_4x4_q8_0},
};

/* What the kernels ask before they take their fast path. */
int ggml_cpu_has_neon(void) { return 1; }
int ggml_cpu_has_dotprod(void) { return 1; }
int ggml_cpu_has_matmul_int8(void) { return 0; }
int ggml_cpu_has_sve(void) { return 0; }
int ggml_cpu_get_sve_cnt(void) { return 0; }

int main(int argc, char **argv) {
    static char weights[BYTES], activations[BYTES];
    static float out[1 << 16];
    if (argc != 4)
        return 2;
    int rows = atoi(argv[2]), inputs = atoi(argv[3]);
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        if (strcmp(kernels[i].name, argv[1]) != 0)
            continue;
        if (kernels[i].dot)
            kernels[i].dot(inputs, out, 0, weights, 0, activations, 0, 1);
        else
            kernels[i].product(inputs, out, OUTPUTS, weights, activations, rows, OUTPUTS);
        printf("%g\n", out[0]);
        return 0;
    }
    fprintf(stderr, "no kernel %s\n", argv[1]);
    return 1;
}
