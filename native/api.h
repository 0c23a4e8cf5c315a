/*
 * pgsonar.h for C files. cffi reads that header as it stands, so it can have no include guard of its own.
 */
#ifndef PGSONAR_API_H
#define PGSONAR_API_H

#include <stdint.h>

#include "pgsonar.h"

#endif
