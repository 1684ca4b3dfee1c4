#pragma once
void vTaskDelay(const TickType_t ticks);
