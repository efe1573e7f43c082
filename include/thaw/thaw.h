/* Everything of thaw's public interface. */
#ifndef THAW_THAW_H
#define THAW_THAW_H

#include "thaw/comm.h"
#include "thaw/data.h"
#include "thaw/model.h"
#include "thaw/plan.h"
#include "thaw/status.h"
#include "thaw/train.h"

#endif
