// SPDX-License-Identifier: Apache-2.0
//
// What QEMU's threads do with memory: many at once take a lot of it in small blocks, and give it back.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int g_main_context_prepare(void *context, int *priority) __attribute__((weak)); // hyperjail/filter

#define THREADS 24
#define BLOCKS  2000
#define SIZE    16384 // bytes; small enough not to be a mapping of its own

static pthread_barrier_t all;

static void *work(void *unused)
{
	static __thread void *block[BLOCKS];

	(void)unused;
	pthread_barrier_wait(&all);
	for (int i = 0; i < BLOCKS; i++) {
		block[i] = malloc(SIZE);
		if (!block[i])
			exit(2);
		memset(block[i], 1, 64);
	}
	pthread_barrier_wait(&all);
	for (int i = BLOCKS - 1; i >= 0; i--)
		free(block[i]);
	return NULL;
}

int main(void)
{
	pthread_t thread[THREADS];

	if (g_main_context_prepare)
		g_main_context_prepare(NULL, NULL);
	pthread_barrier_init(&all, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, work, NULL))
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	puts("done");
	return 0;
}
