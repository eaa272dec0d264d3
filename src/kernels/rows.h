/* Kernels over rows of activations. */
#ifndef LSK_ROWS_H
#define LSK_ROWS_H

#endif
