/* private: what the rejection rules of chains and trees share. Inside the room only. */
#ifndef VERIFY_PRIVATE_H
#define VERIFY_PRIVATE_H

#include "verify/verify.h"

/* The coin of a purpose for the token `ahead` positions after the one that row 0 chooses. */
float verify_coin(const struct verify_coins *coins, enum coin_purpose purpose, int32_t ahead,
                  int32_t index);

#endif
