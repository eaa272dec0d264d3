/* Kernels of attention. */
#ifndef LSK_ATTENTION_H
#define LSK_ATTENTION_H

#endif
